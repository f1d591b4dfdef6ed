//! What is read from whoever calls: the key to be verified, the answer to a question.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};

use zeroize::Zeroizing;

use crate::{
    failure::{Exit, Failure},
    output::Output,
};

/// Far more than any key has.
const LONGEST_INPUT: u64 = 64 * 1024;

/// The key on the standard input, without the one newline that `echo` and files end with. From a terminal it is asked for.
pub(crate) async fn secret() -> Result<Zeroizing<Vec<u8>>, Failure> {
    let secret = if io::stdin().is_terminal() { prompt()? } else { waiting(read).await? };
    if secret.is_empty() {
        return Err(Failure::new(
            Exit::Refused,
            "there is no key to verify: write it to the standard input, as in `tollgate verify < key.txt`",
        ));
    }
    Ok(secret)
}

/// Asks on the terminal, which shows nothing of the answer.
///
/// The thread waits, and nothing else does: after Ctrl-C the terminal must be as before by the time that the program ends.
fn prompt() -> Result<Zeroizing<Vec<u8>>, Failure> {
    match rpassword::prompt_password("Key: ") {
        Ok(key) => Ok(Zeroizing::new(key.into_bytes())),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            Err(Failure::new(Exit::Interrupted, "interrupted: nothing was verified"))
        }
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Zeroizing::default()),
        Err(error) => Err(unreadable(&error)),
    }
}

fn read() -> Result<Zeroizing<Vec<u8>>, Failure> {
    // Reserved at once, because a buffer that grows leaves its old memory behind unwiped.
    let mut secret = Zeroizing::new(Vec::with_capacity(usize::try_from(LONGEST_INPUT).unwrap_or_default()));
    io::stdin().lock().take(LONGEST_INPUT).read_to_end(&mut secret).map_err(|error| unreadable(&error))?;
    trim_newline(&mut secret);
    Ok(secret)
}

fn trim_newline(secret: &mut Vec<u8>) {
    if secret.last() == Some(&b'\n') {
        secret.pop();
        if secret.last() == Some(&b'\r') {
            secret.pop();
        }
    }
}

/// Asks a question that is answered with yes or no, where there is somebody to answer it.
pub(crate) async fn confirm(question: &str, output: &mut Output) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::new(
            Exit::Usage,
            "nobody can be asked, since the standard input is no terminal: say --yes, and it is deleted without a question",
        ));
    }
    output.ask(&format!("{question} [y/N] "));
    let answer = waiting(|| {
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer).map_err(|error| unreadable(&error))?;
        Ok(answer)
    });
    let answer = answer.await?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Reads on a thread of its own, so that Ctrl-C is heard meanwhile.
async fn waiting<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let outcome = tokio::task::spawn_blocking(read).await;
    outcome.unwrap_or_else(|_| Err(Failure::new(Exit::Usage, "the standard input cannot be read")))
}

fn unreadable(error: &io::Error) -> Failure {
    Failure::new(Exit::Usage, format!("the standard input cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::trim_newline;

    #[test]
    fn one_newline_is_left_out_and_nothing_else() {
        for (given, left) in
            [("k", "k"), ("k\n", "k"), ("k\r\n", "k"), ("k\n\n", "k\n"), (" k \n", " k "), ("\n", "")]
        {
            let mut secret = given.as_bytes().to_vec();
            trim_newline(&mut secret);
            assert_eq!(secret, left.as_bytes(), "{given:?}");
        }
    }
}
