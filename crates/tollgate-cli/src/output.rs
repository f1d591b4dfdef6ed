//! Writes results to standard output, and all other text to standard error.

pub(crate) mod describe;
pub(crate) mod table;
mod visible;

use std::io::{self, Write as _};

use serde_json::Value;

pub(crate) use self::visible::visible;
use crate::failure::{Exit, Failure};

/// Writes a result. A reader that closes the pipe early, such as `head`, causes no failure.
pub(crate) fn result(text: &str) -> Result<(), Failure> {
    match write(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Output, format!("cannot write the output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes a result as one line of JSON.
pub(crate) fn json(value: &Value) -> Result<(), Failure> {
    result(&visible::json(value))
}

/// Writes a secret. Unlike for a [`result`], a closed pipe is an error: there is no other copy.
pub(crate) fn secret(text: &str) -> io::Result<()> {
    write(text)
}

/// Writes a document with a secret as one line of JSON.
pub(crate) fn secret_json(document: &Value) -> io::Result<()> {
    secret(&visible::json(document))
}

fn write(text: &str) -> io::Result<()> {
    let newline = if text.ends_with('\n') { "" } else { "\n" };
    let mut out = io::stdout().lock();
    write!(out, "{text}{newline}")?;
    out.flush()
}

/// Writes a message. Ignores errors: there is no other place to report them.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Writes a question, without a newline.
pub(crate) fn ask(question: &str) {
    let _ = write!(io::stderr(), "{question}");
}
