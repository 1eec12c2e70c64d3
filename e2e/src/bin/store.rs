//! Sample application, store: counters in memory behind the Redis protocol.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result};
use clap::Parser as _;
use contrast_e2e::application::{
    Arguments,
    resp::{Reply, read_command},
};
use tokio::{
    io::{AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

type Counters = Arc<Mutex<HashMap<String, i64>>>;

const CONNECTIONS_MAX: usize = 256;

#[tokio::main]
async fn main() -> Result<()> {
    let listen = Arguments::parse().listen();
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("cannot listen on {listen}"))?;
    let counters = Counters::default();
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        let (stream, _) = listener.accept().await?;
        connections.spawn(serve(stream, Arc::clone(&counters)));
    }
}

async fn serve(stream: TcpStream, counters: Counters) -> Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(words) = read_command(&mut stream).await? {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let reply = answer(&words, &counters);
        stream.write_all(reply.encode().as_bytes()).await?;
    }
    Ok(())
}

fn answer(words: &[&str], counters: &Counters) -> Reply {
    let mut counters = counters.lock().unwrap_or_else(PoisonError::into_inner);
    match words {
        ["PING"] => Reply::Simple("PONG"),
        ["GET", key] => Reply::Bulk(counters.get(*key).map(ToString::to_string)),
        ["SET", key, value] => match value.parse() {
            Ok(number) => {
                counters.insert((*key).to_owned(), number);
                Reply::Simple("OK")
            }
            Err(_) => Reply::Error("value is not an integer".to_owned()),
        },
        ["INCR", key] => {
            let counter = counters.entry((*key).to_owned()).or_default();
            *counter = counter.saturating_add(1);
            Reply::Integer(*counter)
        }
        _ => Reply::Error(format!("unknown command `{}`", words.join(" "))),
    }
}
