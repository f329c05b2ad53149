//! The thread that keeps in touch with the other member: heartbeats over every path, and one stream for what is told.
//!
//! It is a thread of its own so that a gateway that is busy with a thousand connections does not seem dead; and it falls
//! silent when the control loop does not look in for a while, so that one that hangs does.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base::{Instant, Machine, Random, Secret};
use cluster::channel::{HELLO, LENGTH};
use cluster::{Handshake, Heartbeat, Key, Member, Opener, Options, Output, Role, Sealer};
use os::clock::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, mpsc, oneshot};
use zeroize::Zeroizing;

use super::words::{FORMAT, Word};
use crate::handover::Wiped;

/// The control loop may be silent for so long.
const HANGS: Duration = Duration::from_secs(10);
/// How long the beginning of a conversation may take.
const GREETING: Duration = Duration::from_secs(2);
/// How soon another is tried.
const AGAIN: Duration = Duration::from_millis(250);
/// How long a silent conversation is kept.
const SILENCE: Duration = Duration::from_secs(10);
/// Conversations at most that have not proved themselves.
const GREETINGS: usize = 8;
/// Bytes that wait for the other member at most.
const WAITING: usize = 128 << 20;
/// The longest first record.
const FIRST: usize = 64 << 10;

/// What the control loop asks of the thread.
pub(super) enum Ask {
    /// The other member is to take this one's place, or this one the other's.
    TakePlace,
    /// What was told is whole, or is not.
    InStep(bool),
    /// The configuration is another: conversations begin anew with this digest of it.
    Digest([u8; 32]),
    /// This conversation ends.
    End(u64),
}

/// What the control loop hears.
#[derive(Debug)]
pub(crate) enum Heard {
    /// The role changes, or the other member is heard or not.
    Member(Output),
    /// A conversation has begun.
    Begun(Line),
    /// Something was said in it.
    Said(u64, Word),
    /// It has ended, and why.
    Ended(u64, String),
    /// Something a person should know: a sentence without a full stop.
    Note(String),
}

/// A conversation with the other member.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// Its number.
    pub(crate) number: u64,
    queue: mpsc::UnboundedSender<Item>,
    waiting: Arc<AtomicUsize>,
}

#[derive(Debug)]
enum Item {
    Message(Secret),
    Flush(oneshot::Sender<()>),
}

impl Line {
    /// Says something; `false` when the other does not listen, or too slowly.
    pub(crate) fn say(&self, word: &Word) -> bool {
        let Ok(message) = written(word) else { return false };
        let waiting = self.waiting.fetch_add(message.len(), Relaxed);
        waiting < WAITING && self.queue.send(Item::Message(message)).is_ok()
    }

    /// Waits until all that was said is with the kernel, but not for long.
    pub(crate) async fn flush(&self) {
        let (done, asked) = oneshot::channel();
        if self.queue.send(Item::Flush(done)).is_ok() {
            let _ = tokio::time::timeout(Duration::from_millis(50), asked).await;
        }
    }
}

/// What is known of the cluster, for status.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) role: Role,
    pub(crate) since: (Instant, &'static str),
    pub(crate) term: u64,
    pub(crate) partner: Option<(Heartbeat, Instant)>,
}

/// The thread, from outside.
#[derive(Debug)]
pub(crate) struct Link {
    pub(super) asks: mpsc::UnboundedSender<Ask>,
    pub(super) heard: mpsc::UnboundedReceiver<Heard>,
    view: Arc<Mutex<View>>,
    looked_in: Arc<AtomicU64>,
}

impl Link {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the kernel has no thread for it.
    pub(crate) fn start(
        config: &model::Cluster,
        key: Key,
        digest: [u8; 32],
        mut random: Random,
        clock: Clock,
    ) -> io::Result<Self> {
        let options = Options {
            member: config.member.saturating_sub(1),
            preference: config.preference,
            preempt: config.preempt,
            interval: config.interval,
            dead_after: config.dead_after,
        };
        let member = Member::new(options, random.next_u64(), clock.now());
        let view = Arc::new(Mutex::new(view_of(&member)));
        let (asks, asked) = mpsc::unbounded_channel();
        let (tell, heard) = mpsc::unbounded_channel();
        let looked_in = Arc::new(AtomicU64::new(clock.now().as_micros()));
        let (local, peer) = (config.local.clone(), config.peer.clone());
        let (inside, events) = mpsc::unbounded_channel();
        let keeper = Keeper {
            clock,
            member,
            key: Arc::new(key),
            digest,
            random,
            peer,
            tell,
            inside,
            sockets: Vec::new(),
            line: None,
            numbers: 0,
            call_at: clock.now(),
            is_calling: false,
            path: 0,
            view: view.clone(),
            looked_in: looked_in.clone(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new()
            .name("simplon-cluster".to_owned())
            .spawn(move || runtime.block_on(keeper.serve(local, asked, events)))?;
        Ok(Self { asks, heard, view, looked_in })
    }

    pub(crate) fn view(&self) -> View {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The control loop lives.
    pub(crate) fn look_in(&self, now: Instant) {
        self.looked_in.store(now.as_micros(), Relaxed);
    }
}

fn view_of(member: &Member) -> View {
    View { role: member.role(), since: member.since(), term: member.term(), partner: member.partner() }
}

/// What the tasks of the thread tell it.
enum Inside {
    Bound(usize, Arc<UdpSocket>),
    Datagram(Vec<u8>),
    Called(TcpStream),
    Greeted(Box<(TcpStream, Sealer, Opener, bool)>),
    Failed { why: String, has_called: bool },
    Said(u64, Word),
    Ended(u64, String),
    Note(String),
}

struct Keeper {
    clock: Clock,
    member: Member,
    key: Arc<Key>,
    digest: [u8; 32],
    random: Random,
    peer: Vec<SocketAddr>,
    tell: mpsc::UnboundedSender<Heard>,
    inside: mpsc::UnboundedSender<Inside>,
    sockets: Vec<(usize, Arc<UdpSocket>)>,
    line: Option<Line>,
    numbers: u64,
    call_at: Instant,
    is_calling: bool,
    path: usize,
    view: Arc<Mutex<View>>,
    looked_in: Arc<AtomicU64>,
}

impl Keeper {
    async fn serve(
        mut self,
        local: Vec<SocketAddr>,
        mut asks: mpsc::UnboundedReceiver<Ask>,
        mut events: mpsc::UnboundedReceiver<Inside>,
    ) {
        for (path, address) in local.into_iter().enumerate() {
            tokio::spawn(hear(path, address, self.inside.clone()));
            tokio::spawn(listen(address, self.inside.clone()));
        }
        let greetings = Arc::new(Semaphore::new(GREETINGS));
        loop {
            let now = self.clock.now();
            let due = self.member.poll_timeout().map_or(now + AGAIN, |deadline| deadline.at);
            let due = if self.may_call() { due.min(self.call_at) } else { due };
            tokio::select! {
                ask = asks.recv() => match ask {
                    None => return,
                    Some(ask) => self.obey(ask),
                },
                Some(event) = events.recv() => self.take(event, &greetings),
                () = tokio::time::sleep(self.clock.until(due)) => {}
            }
            let now = self.clock.now();
            if self.member.poll_timeout().is_some_and(|deadline| deadline.at <= now) {
                self.member.handle_timeout(now);
            }
            self.carry_out(now);
            if self.may_call() && self.call_at <= now {
                self.call(now);
            }
        }
    }

    /// Who stands by calls, and the active one listens.
    fn may_call(&self) -> bool {
        let is_active = self.member.partner().is_some_and(|(said, _)| said.role == Role::Active);
        self.member.role() == Role::Standby && is_active && self.line.is_none() && !self.is_calling
    }

    fn call(&mut self, now: Instant) {
        (self.is_calling, self.call_at) = (true, now + AGAIN);
        let peer = self.peer[self.path % self.peer.len()];
        self.path += 1;
        let (inside, key, digest) = (self.inside.clone(), self.key.clone(), self.digest);
        let handshake = Handshake::new(&mut self.random);
        tokio::spawn(async move {
            let greeted = tokio::time::timeout(GREETING, async {
                let stream = TcpStream::connect(peer).await.map_err(|e| format!("{peer}: {e}"))?;
                greet(stream, handshake, &key, digest, true).await
            });
            let greeted = greeted.await.unwrap_or_else(|_| Err(format!("{peer} does not answer")));
            let _ = inside.send(match greeted {
                Ok(greeted) => Inside::Greeted(Box::new(greeted)),
                Err(why) => Inside::Failed { why, has_called: true },
            });
        });
    }

    fn obey(&mut self, ask: Ask) {
        match ask {
            Ask::TakePlace => self.member.take_place(self.clock.now()),
            Ask::InStep(is_in_step) => self.member.note_in_step(is_in_step, self.clock.now()),
            Ask::Digest(digest) => {
                self.digest = digest;
                self.line = None;
            }
            Ask::End(number) => {
                if self.line.as_ref().is_some_and(|line| line.number == number) {
                    self.line = None;
                }
            }
        }
    }

    fn take(&mut self, event: Inside, greetings: &Arc<Semaphore>) {
        let now = self.clock.now();
        match event {
            Inside::Bound(path, socket) => self.sockets.push((path, socket)),
            Inside::Datagram(bytes) => {
                if let Some(said) = Heartbeat::open(&bytes, &self.key) {
                    self.member.handle_heartbeat(said, now);
                }
            }
            Inside::Called(stream) => {
                let Ok(permit) = greetings.clone().try_acquire_owned() else { return };
                let (inside, key, digest) = (self.inside.clone(), self.key.clone(), self.digest);
                let handshake = Handshake::new(&mut self.random);
                tokio::spawn(async move {
                    let _permit = permit;
                    let greeted = tokio::time::timeout(GREETING, greet(stream, handshake, &key, digest, false)).await;
                    match greeted {
                        Ok(Ok(greeted)) => drop(inside.send(Inside::Greeted(Box::new(greeted)))),
                        Ok(Err(why)) => drop(inside.send(Inside::Failed { why, has_called: false })),
                        Err(_) => {}
                    }
                });
            }
            Inside::Failed { why, has_called } => {
                self.is_calling &= !has_called;
                let _ = self.tell.send(Heard::Note(why));
            }
            Inside::Greeted(greeted) => {
                let (stream, sealer, opener, has_called) = *greeted;
                self.is_calling &= !has_called;
                self.begin(stream, sealer, opener);
            }
            Inside::Said(number, word) => drop(self.tell.send(Heard::Said(number, word))),
            Inside::Ended(number, why) => {
                if self.line.as_ref().is_some_and(|line| line.number == number) {
                    self.line = None;
                    self.call_at = now + AGAIN;
                }
                let _ = self.tell.send(Heard::Ended(number, why));
            }
            Inside::Note(text) => drop(self.tell.send(Heard::Note(text))),
        }
    }

    /// A conversation is authentic: it takes the place of the one before.
    fn begin(&mut self, stream: TcpStream, sealer: Sealer, opener: Opener) {
        self.numbers += 1;
        let number = self.numbers;
        let (reading, writing) = stream.into_split();
        let (queue, items) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let line = Line { number, queue, waiting: waiting.clone() };
        tokio::spawn(write(writing, sealer, items, waiting, number, self.inside.clone()));
        tokio::spawn(read(reading, opener, number, self.inside.clone()));
        self.line = Some(line.clone());
        let _ = self.tell.send(Heard::Begun(line));
    }

    fn carry_out(&mut self, now: Instant) {
        let looked_in = Instant::from_micros(self.looked_in.load(Relaxed));
        let hangs = now.saturating_since(looked_in) > HANGS;
        while let Some(output) = self.member.poll_output() {
            match output {
                Output::Send(_) if hangs => {}
                Output::Send(said) => {
                    let datagram = said.seal(&self.key);
                    for (path, socket) in &self.sockets {
                        // A path that is cut is what the others are for.
                        let _ = socket.try_send_to(&datagram, self.peer[*path]);
                    }
                }
                other @ (Output::TakeOver { .. }
                | Output::StandBy { .. }
                | Output::Partner { .. }
                | Output::AskForPlace) => {
                    self.call_at = now;
                    let _ = self.tell.send(Heard::Member(other));
                }
            }
        }
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = view_of(&self.member);
    }
}

fn written(word: &Word) -> serde_json::Result<Secret> {
    let mut bytes = Wiped::default();
    serde_json::to_writer(&mut bytes, word)?;
    Ok(Secret::from(&bytes.0[..]))
}

/// Binds a socket, however long that takes, and hears what comes to it.
async fn hear(path: usize, address: SocketAddr, inside: mpsc::UnboundedSender<Inside>) {
    let socket = Arc::new(bound(address, &inside, UdpSocket::bind).await);
    let _ = inside.send(Inside::Bound(path, socket.clone()));
    let mut buffer = [0; 256];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((len, _)) => {
                if inside.send(Inside::Datagram(buffer[..len].to_vec())).is_err() {
                    return;
                }
            }
            // Word of an earlier datagram that did not arrive.
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

async fn listen(address: SocketAddr, inside: mpsc::UnboundedSender<Inside>) {
    let listener = bound(address, &inside, TcpListener::bind).await;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if inside.send(Inside::Called(stream)).is_err() {
                    return;
                }
            }
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}

async fn bound<T, F: Future<Output = io::Result<T>>>(
    address: SocketAddr,
    inside: &mpsc::UnboundedSender<Inside>,
    bind: impl Fn(SocketAddr) -> F,
) -> T {
    let mut has_said = false;
    loop {
        match bind(address).await {
            Ok(bound) => return bound,
            Err(e) if !std::mem::replace(&mut has_said, true) => {
                let _ = inside.send(Inside::Note(format!("cannot listen to the other member at {address} yet: {e}")));
            }
            Err(_) => {}
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Begins a conversation: keys, and then whether both mean the same.
async fn greet(
    mut stream: TcpStream,
    handshake: Handshake,
    key: &Key,
    digest: [u8; 32],
    has_called: bool,
) -> Result<(TcpStream, Sealer, Opener, bool), String> {
    let broken = |e: io::Error| format!("the conversation with the other member did not begin: {e}");
    stream.set_nodelay(true).map_err(broken)?;
    stream.write_all(handshake.hello()).await.map_err(broken)?;
    let mut theirs = [0; HELLO];
    stream.read_exact(&mut theirs).await.map_err(broken)?;
    let (mut sealer, mut opener) = handshake.finish(&theirs, has_called, key).map_err(|e| e.to_string())?;
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let hello = Word::Hello { format: FORMAT, version, digest: digest.as_slice().into() };
    say(&mut stream, &mut sealer, &hello).await?;
    match receive(&mut stream, &mut opener, FIRST).await? {
        Word::Hello { format, .. } if format != FORMAT => Err(format!(
            "the other member speaks format {format}, and this one {FORMAT}: they cannot stand by for each other"
        )),
        Word::Hello { digest: other, .. } if other.0 != digest => {
            Err("the two members have different configurations: nothing is told until they are the same".to_owned())
        }
        Word::Hello { .. } => Ok((stream, sealer, opener, has_called)),
        Word::Refused(why) => Err(why),
        Word::All(_)
        | Word::Anew
        | Word::One(_)
        | Word::Gone(_)
        | Word::Sa(_)
        | Word::Removed(_)
        | Word::Moved(..)
        | Word::Activated(_)
        | Word::Learnt(_)
        | Word::Marks { .. }
        | Word::Heard(_)
        | Word::AskForPlace
        | Word::TakePlace => Err("the other member did not say hello".to_owned()),
    }
}

async fn say(stream: &mut TcpStream, sealer: &mut Sealer, word: &Word) -> Result<(), String> {
    let message = written(word).map_err(|e| e.to_string())?;
    let record = sealer.seal(&message).map_err(|e| e.to_string())?;
    stream.write_all(&record).await.map_err(|e| e.to_string())
}

async fn receive<R: AsyncReadExt + Unpin>(stream: &mut R, opener: &mut Opener, most: usize) -> Result<Word, String> {
    let hung_up = |e: io::Error| {
        if e.kind() == io::ErrorKind::UnexpectedEof {
            "the other member hung up".to_owned()
        } else {
            format!("the other member is not reached: {e}")
        }
    };
    let mut length = [0; LENGTH];
    stream.read_exact(&mut length).await.map_err(hung_up)?;
    let len = Opener::length(length).map_err(|e| e.to_string())?;
    if len > most {
        return Err("the other member says too much at once".to_owned());
    }
    // Room is made as bytes come, whatever length is claimed. They are sealed still.
    let (mut rest, mut chunk) = (Vec::new(), vec![0; len.min(64 << 10)]);
    while rest.len() < len {
        let room = chunk.len().min(len - rest.len());
        let read = stream.read(&mut chunk[..room]).await.map_err(hung_up)?;
        if read == 0 {
            return Err("the other member hung up".to_owned());
        }
        rest.extend_from_slice(&chunk[..read]);
    }
    let message = opener.open(length, rest).map_err(|e| e.to_string())?;
    // Deliberate: what was found is not told, for it may be part of a key.
    serde_json::from_slice(message.expose()).map_err(|_| "what the other member said is not understood".to_owned())
}

async fn read(mut stream: OwnedReadHalf, mut opener: Opener, number: u64, inside: mpsc::UnboundedSender<Inside>) {
    let why = loop {
        let next = tokio::time::timeout(SILENCE, receive(&mut stream, &mut opener, usize::MAX)).await;
        match next {
            Ok(Ok(Word::Refused(why))) => break why,
            Ok(Ok(word)) => {
                if inside.send(Inside::Said(number, word)).is_err() {
                    return;
                }
            }
            Ok(Err(why)) => break why,
            Err(_) => break "the other member says nothing any more".to_owned(),
        }
    };
    let _ = inside.send(Inside::Ended(number, why));
}

async fn write(
    mut stream: OwnedWriteHalf,
    mut sealer: Sealer,
    mut items: mpsc::UnboundedReceiver<Item>,
    waiting: Arc<AtomicUsize>,
    number: u64,
    inside: mpsc::UnboundedSender<Inside>,
) {
    let why = loop {
        match items.recv().await {
            None => return,
            Some(Item::Flush(done)) => drop(done.send(())),
            Some(Item::Message(message)) => {
                waiting.fetch_sub(message.len().min(waiting.load(Relaxed)), Relaxed);
                let record = match sealer.seal(&message) {
                    Ok(record) => Zeroizing::new(record),
                    Err(e) => break e.to_string(),
                };
                if let Err(e) = stream.write_all(&record).await {
                    break format!("the other member is not reached: {e}");
                }
            }
        }
    };
    let _ = inside.send(Inside::Ended(number, why));
}
