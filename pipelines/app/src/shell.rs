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

    /// Adds a variable of the environment, which goes in front of the command.
    pub fn variable(&mut self, name: &str, value: &str) {
        self.begin();
        self.0.push_str(name);
        self.0.push('=');
        self.quoted(value);
    }

    /// Adds a word.
    pub fn word(&mut self, word: &str) {
        self.begin();
        self.quoted(word);
    }

    fn begin(&mut self) {
        if !self.0.is_empty() {
            self.0.push(' ');
        }
    }

    fn quoted(&mut self, word: &str) {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
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
        words.variable("NAME", "a b");
        words.option("--files", Some("my file.gz"));
        words.word("it's.gz");
        words.option("--to", None::<String>);
        words.word("");
        words.word("a/b-c_1.gz");
        words.word("$(x)");
        assert_eq!(words.text(), "NAME='a b' --files 'my file.gz' 'it'\\''s.gz' '' a/b-c_1.gz '$(x)'");
    }
}
