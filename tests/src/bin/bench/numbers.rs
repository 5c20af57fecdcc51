//! Figures as people read them.

/// With three digits at least, and thousands apart.
pub fn shown(value: f64) -> String {
    let size = value.abs();
    let decimals = match size {
        _ if size >= 100.0 || size == 0.0 => 0,
        _ if size >= 10.0 => 1,
        _ if size >= 1.0 => 2,
        _ if size >= 0.1 => 3,
        _ => 5,
    };
    let text = format!("{size:.decimals$}");
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), ""), |(whole, rest)| (whole, rest));
    let mut grouped = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let sign = if value < 0.0 { "-" } else { "" };
    let point = if rest.is_empty() { "" } else { "." };
    format!("{sign}{grouped}{point}{rest}")
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn numbers_are_readable() {
        let shown: Vec<String> =
            [1_234_567.8, 573.4, 12.34, 1.186, 0.3621, 0.0123, 0.0, -1_000.0].map(shown).into();
        assert_eq!(shown, ["1,234,568", "573", "12.3", "1.19", "0.362", "0.01230", "0", "-1,000"]);
    }
}
