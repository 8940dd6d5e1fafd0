//! A question to a person.

use std::io::{BufRead, Write};

use super::exit::CliError;

/// Asks; only a clear yes is one.
pub(super) fn ask(question: &str, input: &mut impl BufRead, output: &mut impl Write) -> Result<(), CliError> {
    let mut answer = String::new();
    write!(output, "{question}")
        .and_then(|()| output.flush())
        .and_then(|()| input.read_line(&mut answer))
        .map_err(|source| CliError::Output { source })?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(CliError::Declined),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_yes_is_one() {
        for (answer, yes) in [
            ("y\n", true),
            ("Yes\n", true),
            (" YES \n", true),
            ("", false),
            ("\n", false),
            ("n\n", false),
            ("yes please\n", false),
        ] {
            let mut question = Vec::new();
            let answered = ask("Really? ", &mut answer.as_bytes(), &mut question);
            assert_eq!(answered.is_ok(), yes, "{answer:?}");
            assert_eq!(String::from_utf8(question).unwrap(), "Really? ");
            if let Err(error) = answered {
                assert!(matches!(error, CliError::Declined));
            }
        }
    }
}
