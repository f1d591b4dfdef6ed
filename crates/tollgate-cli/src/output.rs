//! What is written: results to the standard output, all else to the standard error.

pub(crate) mod describe;
pub(crate) mod table;

use std::io::{self, Write as _};

use serde_json::Value;

use crate::failure::{Exit, Failure};

/// Writes a result, in lines. A reader who has seen enough, such as `head`, is no failure.
pub(crate) fn result(text: &str) -> Result<(), Failure> {
    match write(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Output, format!("the output cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes a result as JSON, on a line of its own.
pub(crate) fn json(value: &Value) -> Result<(), Failure> {
    result(&value.to_string())
}

/// Writes a secret, or what holds one. Unlike a [`result`] it must arrive: there is no other copy.
pub(crate) fn secret(text: &str) -> io::Result<()> {
    write(text)
}

fn write(text: &str) -> io::Result<()> {
    let newline = if text.ends_with('\n') { "" } else { "\n" };
    let mut out = io::stdout().lock();
    write!(out, "{text}{newline}")?;
    out.flush()
}

/// Tells people something, if anybody listens.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Asks people something.
pub(crate) fn ask(question: &str) {
    let _ = write!(io::stderr(), "{question}");
}
