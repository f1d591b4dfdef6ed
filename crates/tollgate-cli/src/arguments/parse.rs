//! Reads the command line. An error does not repeat what the user has written, because it may be a secret in the wrong place.

use clap::{
    Error, Parser as _,
    error::{ContextKind, ContextValue, ErrorKind},
};

use super::Arguments;

/// What an error shows in place of what the user has written.
const NOT_SHOWN: &str = "(not shown: it may be a secret)";

/// The arguments of this program. Prints help or an error, and ends the program, if there is nothing to do.
pub(crate) fn parse() -> Arguments {
    Arguments::try_parse().unwrap_or_else(|error| without_input(error).exit())
}

/// Removes from an error what the user has written. What remains is the text of this program: names of commands and options,
/// possible values, and the messages of `values`.
fn without_input(mut error: Error) -> Error {
    let written = match error.kind() {
        ErrorKind::InvalidSubcommand => Some(ContextKind::InvalidSubcommand),
        ErrorKind::UnknownArgument => Some(ContextKind::InvalidArg),
        _ => None,
    };
    let not_shown = || ContextValue::String(NOT_SHOWN.to_owned());
    if let Some(written) = written {
        error.insert(written, not_shown());
        // Such as `to pass '--word' as a value, use '-- --word'`.
        error.remove(ContextKind::Suggested);
    }
    // Empty: a value is missing.
    let has_value = |value: &ContextValue| !matches!(value, ContextValue::String(text) if text.is_empty());
    if error.get(ContextKind::InvalidValue).is_some_and(has_value) {
        error.insert(ContextKind::InvalidValue, not_shown());
    }
    error
}
