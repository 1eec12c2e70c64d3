use std::{
    collections::HashMap, convert::Infallible, future::Future, io, sync::Arc, time::Duration,
};

use bytes::Bytes;
use contrast_proto::ttrpc as wire;
use prost::Message as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::{Id, JoinError, JoinSet},
    time::{Instant, sleep, timeout, timeout_at},
};

use crate::{Code, Decoder, FrameError, Incoming, Kind, Status, frame};

/// Before the next attempt, when the system refuses to accept a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What peers may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Body of a request, bytes.
    pub request_bytes: u32,
    /// From the first byte of a message to its last one, in either direction.
    pub message_time: Duration,
    /// Connections at a time; more wait. At least one.
    pub connections: usize,
    /// Calls of a connection at a time; more are refused.
    pub calls: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_bytes: 16 * 1024,
            message_time: Duration::from_secs(10),
            connections: 16,
            calls: 64,
        }
    }
}

/// A call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Full name of the service.
    pub service: String,
    /// Name of the method.
    pub method: String,
    /// What the method takes, encoded.
    pub payload: Bytes,
    /// How long the caller waits; `None` for as long as it takes.
    pub timeout: Option<Duration>,
}

/// Answers calls.
pub trait Handler: Send + Sync + 'static {
    /// What the method gives, encoded, or why it gives nothing. Dropped when nobody waits any more: the caller's time is over, or its
    /// connection is gone.
    fn call(&self, call: Call) -> impl Future<Output = Result<Bytes, Status>> + Send;
}

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("a message was not complete within {} s", .0.as_secs())]
    Slow(Duration),
    #[error("the peer left in the middle of a message")]
    Cut,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Call {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// When it is none.
    pub fn decode(body: Bytes) -> Result<Self, Status> {
        let request = wire::Request::decode(body).map_err(|error| {
            Status::new(
                Code::InvalidArgument,
                format!(
                    "expected a ttrpc request, found something that cannot be decoded: {error}"
                ),
            )
        })?;
        let wait = u64::try_from(request.timeout_nano).unwrap_or(0);
        Ok(Self {
            service: request.service,
            method: request.method,
            payload: request.payload,
            timeout: (wait > 0).then(|| Duration::from_nanos(wait)),
        })
    }
}

/// Serves connections of `listener` until it is dropped.
pub async fn serve<H: Handler>(
    listener: &UnixListener,
    handler: Arc<H>,
    limits: Limits,
) -> Infallible {
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= limits.connections.max(1) {
            connections.join_next().await;
        }
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let handler = Arc::clone(&handler);
                    connections.spawn(async move {
                        if let Err(error) = Connection::new(stream, limits).serve(&handler).await {
                            tracing::warn!(error = &error as &dyn std::error::Error, "a ttrpc connection ended");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

struct Connection {
    reader: Reader,
    writer: OwnedWriteHalf,
    limits: Limits,
}

/// May be cancelled while it waits: what was read is kept.
struct Reader {
    stream: OwnedReadHalf,
    decoder: Decoder,
    /// Which message began, by the count of those before it, and when it has to be complete.
    deadline: Option<(u64, Instant)>,
    message_time: Duration,
}

type Answer = Result<Bytes, Status>;

impl Connection {
    fn new(stream: UnixStream, limits: Limits) -> Self {
        let (stream, writer) = stream.into_split();
        let reader = Reader {
            stream,
            decoder: Decoder::new(limits.request_bytes),
            deadline: None,
            message_time: limits.message_time,
        };
        Self {
            reader,
            writer,
            limits,
        }
    }

    /// Until the peer ends it. Calls that are not done by then are dropped.
    async fn serve<H: Handler>(mut self, handler: &Arc<H>) -> Result<(), ConnectionError> {
        let mut calls: JoinSet<Answer> = JoinSet::new();
        let mut streams: HashMap<Id, u32> = HashMap::new();
        loop {
            tokio::select! {
                incoming = self.reader.next() => {
                    let (stream, refused) = match incoming {
                        Ok(Some(Incoming::Request { stream, body })) => {
                            match self.begin(body, handler, &mut calls) {
                                Ok(id) => {
                                    streams.insert(id, stream);
                                    continue;
                                }
                                Err(status) => (stream, status),
                            }
                        }
                        Ok(Some(other)) => self.refusal(&other),
                        Ok(None) => return Ok(()),
                        Err(ConnectionError::Frame(error)) => {
                            let status = Status::new(Code::InvalidArgument, error.to_string());
                            self.answer(error.stream, Err(status)).await?;
                            return Err(error.into());
                        }
                        Err(error) => return Err(error),
                    };
                    self.answer(stream, Err(refused)).await?;
                }
                Some(done) = calls.join_next_with_id() => {
                    let (id, answer) = finished(done);
                    if let Some(stream) = streams.remove(&id) {
                        self.answer(stream, answer).await?;
                    }
                }
            }
        }
    }

    fn begin<H: Handler>(
        &self,
        body: Bytes,
        handler: &Arc<H>,
        calls: &mut JoinSet<Answer>,
    ) -> Result<Id, Status> {
        let call = Call::decode(body)?;
        let most = self.limits.calls;
        if calls.len() >= most {
            return Err(Status::new(
                Code::ResourceExhausted,
                format!("{most} calls of this connection are not done yet; wait for one of them"),
            ));
        }
        let handler = Arc::clone(handler);
        let task = calls.spawn(async move {
            let Some(wait) = call.timeout else {
                return handler.call(call).await;
            };
            timeout(wait, handler.call(call)).await.unwrap_or_else(|_| {
                let message = format!(
                    "not done within the {} s that the caller waits",
                    wait.as_secs_f32()
                );
                Err(Status::new(Code::DeadlineExceeded, message))
            })
        });
        Ok(task.id())
    }

    fn refusal(&self, incoming: &Incoming) -> (u32, Status) {
        match *incoming {
            Incoming::TooLarge { stream, length } => {
                let message = format!(
                    "the request has {length} bytes, expected at most {}",
                    self.limits.request_bytes
                );
                (stream, Status::new(Code::ResourceExhausted, message))
            }
            Incoming::Even { stream } => {
                let message = format!("the call has the number {stream}, expected an odd one");
                (stream, Status::new(Code::InvalidArgument, message))
            }
            Incoming::Stream { stream } | Incoming::Request { stream, .. } => {
                let message = "this socket has no method with streams";
                (stream, Status::new(Code::Unimplemented, message))
            }
        }
    }

    async fn answer(&mut self, stream: u32, answer: Answer) -> Result<(), ConnectionError> {
        let response = match answer {
            Ok(payload) => wire::Response {
                status: None,
                payload,
            },
            Err(status) => wire::Response {
                status: Some(wire::Status {
                    code: status.code as i32,
                    message: status.message().to_owned(),
                }),
                payload: Bytes::new(),
            },
        };
        let message = frame(Kind::Response, stream, &response.encode_to_vec());
        let wait = self.limits.message_time;
        let written = timeout(wait, self.writer.write_all(&message)).await;
        Ok(written.map_err(|_| ConnectionError::Slow(wait))??)
    }
}

impl Reader {
    async fn next(&mut self) -> Result<Option<Incoming>, ConnectionError> {
        loop {
            if let Some(incoming) = self.decoder.decode()? {
                return Ok(Some(incoming));
            }
            let is_midway = self.decoder.is_midway();
            let number = self.decoder.over();
            let wait = self.message_time;
            let read = self.stream.read_buf(self.decoder.buffer());
            let count = match is_midway {
                false => read.await?,
                true => {
                    let begun = self.deadline.filter(|(message, _)| *message == number);
                    let (_, end) = begun.unwrap_or_else(|| (number, Instant::now() + wait));
                    self.deadline = Some((number, end));
                    let read = timeout_at(end, read).await;
                    read.map_err(|_| ConnectionError::Slow(wait))??
                }
            };
            match (count, is_midway) {
                (0, true) => return Err(ConnectionError::Cut),
                (0, false) => return Ok(None),
                _ => {}
            }
        }
    }
}

fn finished(done: Result<(Id, Answer), JoinError>) -> (Id, Answer) {
    match done {
        Ok(done) => done,
        Err(error) => {
            tracing::error!(%error, "a call ended abnormally");
            let status = Status::new(
                Code::Internal,
                "the call ended abnormally; this is a bug, its log says more",
            );
            (error.id(), Err(status))
        }
    }
}
