//! Command lines that are shown to be copied.

/// Words of a command line, so quoted that a shell takes each for one.
#[derive(Debug, Default)]
pub struct Words(String);

impl Words {
    /// Adds an option, if it has a value.
    pub fn option(&mut self, name: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.word(name);
            self.word(&value.to_string());
        }
    }

    /// The words, with blanks between them.
    pub fn text(self) -> String {
        self.0
    }

    /// Adds a word.
    pub fn word(&mut self, word: &str) {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
        if !self.0.is_empty() {
            self.0.push(' ');
        }
        if !word.is_empty() && word.chars().all(is_plain) {
            self.0.push_str(word);
        } else {
            self.0.push('\'');
            self.0.push_str(&word.replace('\'', "'\\''"));
            self.0.push('\'');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_takes_each_word_for_one() {
        let mut words = Words::default();
        words.option("--files", Some("my file.gz"));
        words.word("it's.gz");
        words.option("--to", None::<String>);
        words.word("");
        words.word("a/b-c_1.gz");
        words.word("$(x)");
        assert_eq!(words.text(), "--files 'my file.gz' 'it'\\''s.gz' '' a/b-c_1.gz '$(x)'");
    }
}
