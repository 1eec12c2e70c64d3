//! The part of the Redis protocol (RESP2) that the sample store speaks: commands as arrays of bulk strings; simple
//! strings, integers, bulk strings and errors as answers.

use anyhow::{Context, Result, bail, ensure};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

const ARGUMENTS_MAX: usize = 8;
const BULK_BYTES_MAX: usize = 4096;

/// One answer of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// `+text`
    Simple(&'static str),
    /// `:number`
    Integer(i64),
    /// `$length`, or the null bulk string
    Bulk(Option<String>),
    /// `-ERR text`
    Error(String),
}

impl Reply {
    /// The bytes on the wire.
    pub fn encode(&self) -> String {
        match self {
            Self::Simple(text) => format!("+{text}\r\n"),
            Self::Integer(number) => format!(":{number}\r\n"),
            Self::Bulk(Some(text)) => format!("${}\r\n{text}\r\n", text.len()),
            Self::Bulk(None) => "$-1\r\n".to_owned(),
            Self::Error(text) => format!("-ERR {text}\r\n"),
        }
    }
}

/// Reads one command; `None` at the end of the stream.
///
/// # Errors
/// When the bytes are no command or exceed the limits.
pub async fn read_command<R: AsyncRead + Unpin>(
    reader: &mut BufReader<R>,
) -> Result<Option<Vec<String>>> {
    let header = read_line(reader).await?;
    if header.is_empty() {
        return Ok(None);
    }
    let count: usize = header
        .strip_prefix('*')
        .context("expected an array")?
        .parse()?;
    ensure!(
        (1..=ARGUMENTS_MAX).contains(&count),
        "a command has 1 to {ARGUMENTS_MAX} words"
    );
    let mut words = Vec::with_capacity(count);
    for _ in 0..count {
        let header = read_line(reader).await?;
        let length: usize = header
            .strip_prefix('$')
            .context("expected a bulk string")?
            .parse()?;
        words.push(read_bulk(reader, length).await?);
    }
    Ok(Some(words))
}

/// Sends one command to `address` and returns an integer answer, 0 for a key that is not there.
///
/// # Errors
/// When the store cannot be reached or answers with an error.
pub async fn integer(address: &str, words: &[&str]) -> Result<i64> {
    let stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("cannot reach {address}"))?;
    let mut stream = BufReader::new(stream);
    let mut command = format!("*{}\r\n", words.len());
    for word in words {
        command.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.write_all(command.as_bytes()).await?;
    let answer = read_line(&mut stream).await?;
    match answer.split_at_checked(1) {
        Some((":", number)) => Ok(number.parse()?),
        Some(("$", "-1")) => Ok(0),
        Some(("$", length)) => Ok(read_bulk(&mut stream, length.parse()?).await?.parse()?),
        _ => bail!("the store at {address} answered `{answer}`"),
    }
}

async fn read_line<R: AsyncRead + Unpin>(reader: &mut BufReader<R>) -> Result<String> {
    let mut line = String::new();
    reader.take(64).read_line(&mut line).await?;
    Ok(line.trim_end().to_owned())
}

async fn read_bulk<R: AsyncRead + Unpin>(
    reader: &mut BufReader<R>,
    length: usize,
) -> Result<String> {
    ensure!(
        length <= BULK_BYTES_MAX,
        "{length} bytes, at most {BULK_BYTES_MAX}"
    );
    let mut bytes = vec![0; length + 2];
    reader.read_exact(&mut bytes).await?;
    bytes.truncate(length);
    Ok(String::from_utf8(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &str) -> Result<Option<Vec<String>>> {
        read_command(&mut BufReader::new(bytes.as_bytes())).await
    }

    #[tokio::test]
    async fn reads_a_command_and_the_end() {
        let words = read("*2\r\n$4\r\nINCR\r\n$4\r\ntabs\r\n")
            .await
            .expect("valid");
        assert_eq!(words.expect("a command"), ["INCR", "tabs"]);
        assert_eq!(read("").await.expect("end"), None);
    }

    #[tokio::test]
    async fn refuses_what_exceeds_the_limits() {
        assert!(read("*1000000\r\n").await.is_err());
        assert!(read("*1\r\n$99999999\r\n").await.is_err());
        assert!(read("GET / HTTP/1.1\r\n").await.is_err());
    }
}
