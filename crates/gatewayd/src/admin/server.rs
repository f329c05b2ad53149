//! The gateway's end of the admin socket.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;
use tracing::debug;

use super::{Answer, CLIENTS, LARGEST_REQUEST, Request};
use crate::Error;

/// A client that says nothing for this long is hung up on: others may wait for its place.
const SILENCE: Duration = Duration::from_secs(120);

/// A request and where its answer goes.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) request: Request,
    pub(crate) answer: oneshot::Sender<Answer>,
    /// The connection itself, where the request asks for it: then it has no answer.
    pub(crate) stream: Option<std::os::unix::net::UnixStream>,
}

/// The listening socket. It is removed when the value is dropped, if it is still this one.
#[derive(Debug)]
pub(crate) struct Server {
    path: PathBuf,
    inode: u64,
    accepting: AbortHandle,
    ask: mpsc::Sender<Asked>,
    asked: mpsc::Receiver<Asked>,
}

impl Server {
    /// Listens at `path`, whose directory is made if need be. A socket that nobody answers at is left over and is
    /// replaced.
    ///
    /// # Errors
    /// [`Error::AlreadyRunning`]; [`Error::System`] when there is something that is no socket.
    pub(crate) fn listen(path: &Path) -> Result<Self, Error> {
        let system = |what: &str, e| Error::system(format!("{what} {}", path.display()), e);
        if let Some(directory) = path.parent().filter(|d| !d.as_os_str().is_empty() && !d.exists()) {
            let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(directory);
            made.map_err(|e| system("make the directory of the admin socket", e))?;
        }
        remove_stale(path)?;
        let listener = bind_private(path).map_err(|e| system("listen at", e))?;
        let inode = fs::metadata(path).map_err(|e| system("look at", e))?.ino();
        let (ask, asked) = mpsc::channel(CLIENTS);
        let accepting = tokio::spawn(accept(listener, ask.clone())).abort_handle();
        Ok(Self { path: path.to_owned(), inode, accepting, ask, asked })
    }

    /// A way to ask from within the process.
    pub(crate) fn asker(&self) -> mpsc::Sender<Asked> {
        self.ask.clone()
    }

    /// The next request.
    pub(crate) async fn asked(&mut self) -> Option<Asked> {
        self.asked.recv().await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
        if fs::metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Binds under another name and moves the socket into place once its mode is 0600, so that nobody gets in before.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let temporary = path.with_file_name(name);
    let _ = fs::remove_file(&temporary);
    let listener = UnixListener::bind(&temporary)?;
    let placed =
        fs::set_permissions(&temporary, fs::Permissions::from_mode(0o600)).and_then(|()| fs::rename(&temporary, path));
    if let Err(e) = placed {
        let _ = fs::remove_file(&temporary);
        return Err(e);
    }
    Ok(listener)
}

/// Removes a socket that nobody answers at.
fn remove_stale(path: &Path) -> Result<(), Error> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::system(format!("look at {}", path.display()), e)),
    };
    if !found.file_type().is_socket() {
        let e = io::Error::new(io::ErrorKind::AlreadyExists, "it is not a socket");
        return Err(Error::system(format!("listen at {}", path.display()), e));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(Error::AlreadyRunning(path.to_owned())),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|e| Error::system(format!("remove {}", path.display()), e))
        }
        Err(e) => Err(Error::system(format!("look who answers at {}", path.display()), e)),
    }
}

async fn accept(listener: UnixListener, ask: mpsc::Sender<Asked>) {
    let places = Arc::new(Semaphore::new(CLIENTS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let ask = ask.clone();
                tokio::spawn(async move {
                    if let Err(e) = serve(stream, ask).await {
                        debug!("a client of the admin socket is gone: {e}");
                    }
                    drop(place);
                });
            }
            Err(e) => {
                // Out of file descriptors, most likely: it passes when a client goes.
                debug!("cannot take a client of the admin socket: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: UnixStream, ask: mpsc::Sender<Asked>) -> io::Result<()> {
    let (reading, mut writing) = stream.into_split();
    let mut reading = BufReader::new(reading);
    loop {
        let mut line = Vec::new();
        let mut bounded = (&mut reading).take(LARGEST_REQUEST as u64);
        let read = bounded.read_until(b'\n', &mut line);
        let read = tokio::time::timeout(SILENCE, read).await.map_err(|_| io::ErrorKind::TimedOut)??;
        if read == 0 {
            return Ok(());
        }
        if let Ok(request @ Request::HandOver { begin: true, .. }) = serde_json::from_slice(&line) {
            // What came behind it would be lost; nothing does before we speak.
            let stream = reading.into_inner().reunite(writing).map_err(io::Error::other)?.into_std()?;
            let (answer, _) = oneshot::channel();
            let _ = ask.send(Asked { request, answer, stream: Some(stream) }).await;
            return Ok(());
        }
        let is_whole = line.ends_with(b"\n") || read < LARGEST_REQUEST;
        let answer = if is_whole { answer(&line, &ask).await } else { refusal("the request is too long") };
        let mut text = serde_json::to_vec(&answer)?;
        text.push(b'\n');
        writing.write_all(&text).await?;
        if !is_whole {
            return Ok(());
        }
    }
}

async fn answer(line: &[u8], ask: &mpsc::Sender<Asked>) -> Answer {
    let request = match serde_json::from_slice(line) {
        Ok(request) => request,
        Err(e) => return refusal(&format!("the request is not understood: {e}")),
    };
    let (answer, answered) = oneshot::channel();
    if ask.send(Asked { request, answer, stream: None }).await.is_err() {
        return refusal("the gateway stops");
    }
    answered.await.unwrap_or_else(|_| refusal("the gateway stops"))
}

fn refusal(why: &str) -> Answer {
    Answer::Error { message: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{Client, ClientError};
    use std::io::{Read, Write};

    fn socket(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("simplon-admin-{}-{name}", std::process::id())).join("g.sock")
    }

    /// Answers every request with the time 7 until the server is dropped.
    async fn answer_all(mut server: Server, stop: oneshot::Receiver<()>) {
        let answering = async {
            while let Some(asked) = server.asked().await {
                let _ = asked.answer.send(Answer::Done { at_ms: 7 });
            }
        };
        tokio::select! { () = answering => {}, _ = stop => {} }
    }

    #[tokio::test]
    async fn several_clients_are_served_and_the_socket_is_private_and_goes_away() {
        let path = socket("several");
        let server = Server::listen(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(Server::listen(&path), Err(Error::AlreadyRunning(_))));
        let (stop, stopped) = oneshot::channel();
        let answering = tokio::spawn(answer_all(server, stopped));
        let there = path.clone();
        tokio::task::spawn_blocking(move || {
            let mut clients = [0; 3].map(|_| Client::connect(&there).unwrap());
            for client in clients.iter_mut().rev() {
                assert_eq!(client.order(&Request::Reload).unwrap(), 7);
            }
        })
        .await
        .unwrap();
        stop.send(()).unwrap();
        answering.await.unwrap();
        assert!(!path.exists());
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }

    #[tokio::test]
    async fn nonsense_is_answered_and_what_is_too_long_is_hung_up_on() {
        let path = socket("nonsense");
        let server = Server::listen(&path).unwrap();
        let there = path.clone();
        tokio::task::spawn_blocking(move || {
            let mut stream = std::os::unix::net::UnixStream::connect(&there).unwrap();
            stream.write_all(b"{\"command\":\"explode\"}\n").unwrap();
            stream.write_all(&vec![b'x'; LARGEST_REQUEST + 1]).unwrap();
            let mut text = String::new();
            // Bytes that nobody read make the kernel reset the connection instead of ending it.
            let _ = stream.read_to_string(&mut text);
            assert!(text.contains("not understood"), "{text}");
        })
        .await
        .unwrap();
        drop(server);
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }

    #[tokio::test]
    async fn a_left_over_socket_is_replaced_and_a_file_is_not() {
        let path = socket("stale");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        assert!(matches!(Client::connect(&path), Err(ClientError::NotRunning { .. })));
        drop(Server::listen(&path).unwrap());
        fs::write(&path, "precious").unwrap();
        assert!(matches!(Server::listen(&path), Err(Error::System { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }
}
