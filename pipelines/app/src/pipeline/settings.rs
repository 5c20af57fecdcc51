//! Makes an operator from its settings, and finds out which setting is at fault.

use tidewire_contract::{Interface, OperatorType, Settings};

use super::declared::{OperatorDeclared, Setting};
use super::problem::{Problems, nearest};

/// The settings as a table.
pub fn table(settings: &[Setting]) -> Settings {
    settings.iter().map(|setting| (setting.name.to_string(), setting.value.clone())).collect()
}

/// Makes the operator once and asks what it takes and gives; notes what is wrong with its settings.
pub fn interface(
    declared: &OperatorDeclared,
    operator: &OperatorType,
    problems: &mut Problems,
) -> Option<Interface> {
    let error = match (operator.build)(&table(&declared.settings)) {
        Ok(operator) => return Some(operator.interface()),
        Err(error) => error,
    };
    let text = format!("operator `{}` ({}): {error}", declared.id.name, operator.name);
    let named = quoted(&error);
    let by_name =
        named.first().and_then(|name| declared.settings.iter().find(|setting| setting.name == *name));
    if error.starts_with("unknown field")
        && let Some(setting) = by_name
    {
        match nearest(&setting.name, named.get(1..).unwrap_or_default()) {
            Some(near) => {
                problems.add_with_help(&setting.name_place, text, format!("the nearest name is `{near}`"));
            }
            None => problems.add(&setting.name_place, text),
        }
        return None;
    }
    match by_name.or_else(|| culprit(declared, operator, &error)) {
        Some(setting) => {
            let of =
                format!("operator `{}` ({}), `{}`: {error}", declared.id.name, operator.name, setting.name);
            let text = if by_name.is_some() { text } else { of };
            problems.add(&setting.place, text);
        }
        None => problems.add(&declared.id.place, text),
    }
    None
}

/// The setting without which the error would be another: for errors that name none.
fn culprit<'a>(declared: &'a OperatorDeclared, operator: &OperatorType, error: &str) -> Option<&'a Setting> {
    let all = table(&declared.settings);
    declared.settings.iter().find(|setting| {
        let mut fewer = all.clone();
        fewer.remove(setting.name.as_str());
        match (operator.build)(&fewer) {
            Ok(_) => true,
            Err(other) => other != error,
        }
    })
}

/// What stands between backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}
