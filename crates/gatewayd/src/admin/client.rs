//! The other end of the admin socket, for the command line.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gateway::status::Status;
use gateway::status::routing::{BgpPath, RouteStatus};
use ipnet::IpNet;

use super::{Answer, Request};
use crate::log::Page;

/// Largest answer in bytes: a status of ten thousand tunnels fits.
const LARGEST_ANSWER: u64 = 256 << 20;

/// A connection to a running gateway.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

/// Why a gateway did not do what it was asked for.
#[derive(Debug)]
pub enum ClientError {
    /// No gateway answers there.
    NotRunning {
        /// The socket.
        socket: PathBuf,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The connection broke, or the answer cannot be understood.
    Broken(String),
    /// The gateway refused, and why.
    Refused(String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunning { socket, source } if source.kind() == io::ErrorKind::PermissionDenied => {
                write!(f, "{} belongs to another user: run this as the gateway's user", socket.display())
            }
            Self::NotRunning { socket, source } => {
                write!(f, "no gateway answers at {} ({source})", socket.display())
            }
            Self::Broken(why) => write!(f, "the gateway's answer broke off: {why}"),
            Self::Refused(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for ClientError {}

impl Client {
    /// Connects to the gateway behind `socket`.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`].
    pub fn connect(socket: &Path) -> Result<Self, ClientError> {
        let not_running = |source| ClientError::NotRunning { socket: socket.to_owned(), source };
        let stream = UnixStream::connect(socket).map_err(not_running)?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(not_running)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// [`ClientError::Broken`], [`ClientError::Refused`].
    pub fn ask(&mut self, request: &Request) -> Result<Answer, ClientError> {
        let broken = |e: &dyn fmt::Display| ClientError::Broken(e.to_string());
        let mut line = serde_json::to_string(request).map_err(|e| broken(&e))?;
        line.push('\n');
        self.stream.get_mut().write_all(line.as_bytes()).map_err(|e| broken(&e))?;
        let mut answer = String::new();
        self.stream.by_ref().take(LARGEST_ANSWER).read_line(&mut answer).map_err(|e| broken(&e))?;
        if answer.is_empty() {
            return Err(ClientError::Broken("it hung up".to_owned()));
        }
        match serde_json::from_str(&answer).map_err(|e| broken(&e))? {
            Answer::Error { message } => Err(ClientError::Refused(message)),
            answer @ (Answer::Status { .. }
            | Answer::Routes { .. }
            | Answer::BgpPaths { .. }
            | Answer::Events { .. }
            | Answer::HandOver { .. }
            | Answer::Done { .. }) => Ok(answer),
        }
    }

    /// The connection itself, for what is no request.
    pub(crate) fn into_stream(self) -> UnixStream {
        self.stream.into_inner()
    }

    /// How everything is.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn status(&mut self) -> Result<Status, ClientError> {
        let Answer::Status { status } = self.ask(&Request::Status)? else { return Err(unexpected("no status")) };
        Ok(*status)
    }

    /// Gives an order; the time at which it was taken, in milliseconds since the gateway started.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn order(&mut self, request: &Request) -> Result<u64, ClientError> {
        let Answer::Done { at_ms } = self.ask(request)? else { return Err(unexpected("no receipt")) };
        Ok(at_ms)
    }

    /// Some events: those after the number `after`, or the newest.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn events(&mut self, after: Option<u64>, connection: Option<&str>, limit: usize) -> Result<Page, ClientError> {
        let request = Request::Events { after, connection: connection.map(str::to_owned), limit };
        let Answer::Events { page } = self.ask(&request)? else { return Err(unexpected("no events")) };
        Ok(page)
    }

    /// At most `limit` routes, and whether there are more.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn routes(&mut self, limit: usize) -> Result<(Vec<RouteStatus>, bool), ClientError> {
        let answer = self.ask(&Request::Routes { limit })?;
        let Answer::Routes { routes, more } = answer else { return Err(unexpected("no routes")) };
        Ok((routes, more))
    }

    /// At most `limit` paths of BGP, of `prefix` or of all, and whether there are more.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn bgp_paths(&mut self, prefix: Option<IpNet>, limit: usize) -> Result<(Vec<BgpPath>, bool), ClientError> {
        let answer = self.ask(&Request::BgpPaths { prefix, limit })?;
        let Answer::BgpPaths { paths, more } = answer else { return Err(unexpected("no paths")) };
        Ok((paths, more))
    }
}

fn unexpected(what: &str) -> ClientError {
    ClientError::Broken(format!("it is {what}"))
}
