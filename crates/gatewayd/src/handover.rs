//! One process hands a running gateway to another: no packet is lost, and no peer of IKE notices.
//!
//! ```text
//!  new, configuration read         old, packets pass
//!   {"command":"hand_over"} ------>                      over the admin socket, which is of mode 0600
//!   <------------------------------ what it is           another format: the end, nothing has happened
//!   {"command":"hand_over","begin":true} ->
//!   <------------------------------ State, open files    control is held; the data path goes on
//!   Prepared --------------------->                      everything is set up, nothing is served
//!                                                        the data path pauses: packets wait in the kernel
//!   <------------------------------ Last                 sequence numbers, replay windows, what came in meanwhile
//!   Ready ------------------------>                      up to here the old one goes on if anything fails
//!   <------------------------------ Go                   from here on it never seals again
//!  packets pass                                         gives up its sockets; BGP sessions begin anew
//!   <------------------------------ Released             ends, tells no other peer, removes nothing
//!  listens
//! ```
//!
//! The new process seals nothing before it has read `Go`, and the old one nothing after it has written it: no sequence
//! number is used twice, whoever fails when. What goes over the socket holds keys: it is wiped after use and logged
//! nowhere.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use esp::export::ExportedSa;
use gateway::Exported;
use sa::SaId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::admin::{Answer, Client, Request};
use crate::data::{Kind, Offer, Paused, Report, Share};

/// The form of what is handed over. Fields may be added without another number: those that are missing have their
/// default, those that are not known are overlooked. A number for what means something else than it did.
pub(crate) const FORMAT: u32 = 2;

/// The largest message in bytes: some hundred thousand tunnels.
const LARGEST: u64 = 2 << 30;
/// Files that are handed over at most.
const MOST_FILES: usize = 16_384;
/// How long the new process may take to set everything up while control is held.
const PREPARING: Duration = Duration::from_secs(10);
/// How long it may take while no packet passes.
const PAUSED: Duration = Duration::from_secs(2);

/// The state of a gateway whose data path still runs.
#[derive(Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) gateway: Exported,
    pub(crate) sas: Vec<ExportedSa>,
    /// What each worker of the data path has open, in the order in which the files come.
    workers: Vec<Files>,
}

/// The open files of one worker.
#[derive(Serialize, Deserialize)]
struct Files {
    /// The sockets; the devices come behind them.
    sockets: Vec<Kind>,
    devices: usize,
}

/// The rest of it.
#[derive(Serialize, Deserialize)]
pub(crate) struct Last {
    pub(crate) data: Paused,
    pub(crate) heard: Vec<Word>,
}

/// Something that the data path reported and that control has not heard. What comes again by itself is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Word {
    Ike { local: SocketAddr, remote: SocketAddr, payload: base::export::Bytes },
    FirstInbound(SaId),
    SoftLimit(SaId),
    HardLimit(SaId),
    PeerMoved { id: SaId, from: SocketAddr },
    Alive(SaId),
}

/// The steps that the new process and the old one say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Step {
    Prepared,
    Ready,
    Go,
    /// What only one process can have is free.
    Released,
    /// It does not work, and why: a sentence without a full stop.
    Failed(String),
}

/// Why a gateway was not handed over: a sentence without a full stop.
#[derive(Debug)]
pub(crate) struct Refused(pub(crate) String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Word {
    pub(crate) fn of(report: &Report) -> Option<Self> {
        match report {
            Report::Ike { local, remote, payload, at: _ } => {
                Some(Self::Ike { local: *local, remote: *remote, payload: payload.as_slice().into() })
            }
            Report::Esp(esp::Event::FirstInbound(id)) => Some(Self::FirstInbound(*id)),
            Report::Esp(esp::Event::SoftLimit(id)) => Some(Self::SoftLimit(*id)),
            Report::Esp(esp::Event::HardLimit(id)) => Some(Self::HardLimit(*id)),
            Report::Esp(esp::Event::PeerMoved { id, from }) => Some(Self::PeerMoved { id: *id, from: *from }),
            Report::Alive { id, at: _ } => Some(Self::Alive(*id)),
            Report::Esp(esp::Event::NoSa { .. })
            | Report::PathMtu { .. }
            | Report::Notice(_)
            | Report::Refused(_)
            | Report::Ended(_) => None,
        }
    }

    pub(crate) fn into_report(self, at: base::Instant) -> Report {
        match self {
            Self::Ike { local, remote, payload } => Report::Ike { local, remote, payload: payload.0, at },
            Self::FirstInbound(id) => Report::Esp(esp::Event::FirstInbound(id)),
            Self::SoftLimit(id) => Report::Esp(esp::Event::SoftLimit(id)),
            Self::HardLimit(id) => Report::Esp(esp::Event::HardLimit(id)),
            Self::PeerMoved { id, from } => Report::Esp(esp::Event::PeerMoved { id, from }),
            Self::Alive(id) => Report::Alive { id, at },
        }
    }
}

/// Messages over a stream, each with its length before it.
struct Line(UnixStream);

impl Line {
    fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(PREPARING))?;
        Ok(Self(stream))
    }

    fn send<T: Serialize>(&mut self, message: &T) -> io::Result<()> {
        let mut bytes = Wiped::default();
        serde_json::to_writer(&mut bytes, message)?;
        self.0.write_all(&(bytes.0.len() as u64).to_be_bytes())?;
        self.0.write_all(&bytes.0)
    }

    fn receive<T: DeserializeOwned>(&mut self, within: Duration) -> io::Result<T> {
        self.0.set_read_timeout(Some(within))?;
        let mut len = [0; 8];
        self.0.read_exact(&mut len)?;
        let len = u64::from_be_bytes(len);
        if len > LARGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too long"));
        }
        // Room is made as bytes come, whatever length is claimed.
        let (mut bytes, mut chunk) = (Wiped::default(), Zeroizing::new(vec![0; 64 << 10]));
        let mut left = len;
        while left > 0 {
            let most = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let read = self.0.read(&mut chunk[..most])?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            bytes.write_all(&chunk[..read])?;
            left -= read as u64;
        }
        // Deliberate: what was found is not told, for it may be part of a key.
        serde_json::from_slice(&bytes.0).map_err(|e| {
            let what = format!("the message is not understood (byte {} of {len})", e.column());
            io::Error::new(io::ErrorKind::InvalidData, what)
        })
    }

    fn expect(&mut self, step: &Step, within: Duration) -> Result<(), Refused> {
        match self.receive::<Step>(within) {
            Ok(said) if said == *step => Ok(()),
            Ok(Step::Failed(why)) => Err(Refused(why)),
            Ok(said) => Err(Refused(format!("it said {said:?} where {step:?} was expected"))),
            Err(e) => Err(broken(e)),
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), Refused> {
        self.send(step).map_err(broken)
    }
}

fn broken(e: io::Error) -> Refused {
    let is = |kinds: [io::ErrorKind; 2]| kinds.contains(&e.kind());
    let why = if is([io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut]) {
        "the other process takes too long".to_owned()
    } else if is([io::ErrorKind::UnexpectedEof, io::ErrorKind::BrokenPipe]) {
        "the other process hung up".to_owned()
    } else {
        e.to_string()
    };
    Refused(why)
}

/// Bytes that leave nothing behind, not even where they grew out of.
#[derive(Default)]
pub(crate) struct Wiped(pub(crate) Zeroizing<Vec<u8>>);

impl Write for Wiped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.capacity() - self.0.len() < bytes.len() {
            let mut larger = Zeroizing::new(Vec::with_capacity(2 * (self.0.len() + bytes.len()).max(2 << 10)));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The process that ends. Dropped before [`Giver::finish`] came back, nothing has happened.
pub(crate) struct Giver(Line);

impl Giver {
    /// Hands over what may be handed over while packets pass, and waits until the other process has set it up.
    pub(crate) fn offer(stream: UnixStream, gateway: Exported, mut offers: Vec<Offer>) -> Result<Self, Refused> {
        let mut line = Line::new(stream).map_err(broken)?;
        let sas = offers.iter_mut().flat_map(|offer| std::mem::take(&mut offer.sas)).collect();
        let of_one = |offer: &Offer| Files {
            sockets: offer.sockets.iter().map(|(kind, _)| *kind).collect(),
            devices: offer.devices.len(),
        };
        line.send(&State { gateway, sas, workers: offers.iter().map(of_one).collect() }).map_err(broken)?;
        let files: Vec<_> = offers
            .iter()
            .flat_map(|offer| {
                let sockets = offer.sockets.iter().map(|(_, socket)| socket.as_fd());
                sockets.chain(offer.devices.iter().map(AsFd::as_fd))
            })
            .collect();
        os::rights::send(line.0.as_fd(), &files).map_err(broken)?;
        line.expect(&Step::Prepared, PREPARING)?;
        Ok(Self(line))
    }

    /// Hands over how far everything is, now that nothing moves. Once this comes back, the other process is the gateway.
    pub(crate) fn finish(&mut self, last: &Last) -> Result<(), Refused> {
        self.0.send(last).map_err(broken)?;
        self.0.expect(&Step::Ready, PAUSED)?;
        self.0.step(&Step::Go)
    }

    /// Everything that only one process can have is given up. One that has gone meanwhile need not know.
    pub(crate) fn released(mut self) {
        let _ = self.0.step(&Step::Released);
    }
}

/// The process that goes on.
pub(crate) struct Taker {
    line: Line,
}

impl Taker {
    /// Asks the gateway at this socket whether it hands over; also when its clock began, and its devices. It goes on until
    /// [`Self::begin`].
    pub(crate) fn ask(socket: &Path) -> Result<(Client, u64, Vec<String>), Refused> {
        let refused = |e: crate::admin::ClientError| Refused(e.to_string());
        let mut client = Client::connect(socket).map_err(refused)?;
        let request = Request::HandOver { format: FORMAT, begin: false, process: std::process::id() };
        let answer = client.ask(&request).map_err(refused)?;
        let Answer::HandOver { format, began_us, devices } = answer else {
            return Err(Refused("its answer is not understood".to_owned()));
        };
        if format != FORMAT {
            return Err(Refused(format!("the running gateway hands over in format {format}, and this is {FORMAT}")));
        }
        Ok((client, began_us, devices))
    }

    /// Takes the state, and the open files of each worker.
    pub(crate) fn begin(client: Client) -> Result<(Self, State, Vec<Share>), Refused> {
        let mut line = Line::new(client.into_stream()).map_err(broken)?;
        let request = Request::HandOver { format: FORMAT, begin: true, process: std::process::id() };
        let mut text = serde_json::to_vec(&request).map_err(|e| Refused(e.to_string()))?;
        text.push(b'\n');
        line.0.write_all(&text).map_err(broken)?;
        let state: State = line.receive(PREPARING).map_err(broken)?;
        let count = state
            .workers
            .iter()
            .fold(0_usize, |count, worker| count.saturating_add(worker.sockets.len()).saturating_add(worker.devices));
        if count > MOST_FILES {
            return Err(Refused(format!("{count} open files are more than are taken over")));
        }
        let mut files = os::rights::receive(line.0.as_fd(), count).map_err(broken)?.into_iter();
        let share = |worker: &Files| Share {
            sockets: worker.sockets.iter().copied().zip(files.by_ref()).collect(),
            devices: files.by_ref().take(worker.devices).collect(),
        };
        let shares = state.workers.iter().map(share).collect();
        Ok((Self { line }, state, shares))
    }

    /// Everything is set up; what comes back is the rest, and from now on no packet passes.
    pub(crate) fn prepared(&mut self) -> Result<Last, Refused> {
        self.line.step(&Step::Prepared)?;
        self.line.receive(PAUSED + PAUSED).map_err(broken)
    }

    /// Everything is as it was; once this comes back, this process is the gateway.
    pub(crate) fn ready(&mut self) -> Result<(), Refused> {
        self.line.step(&Step::Ready)?;
        self.line.expect(&Step::Go, PAUSED)
    }

    /// Waits until the other process has given up what only one can have, or has gone.
    pub(crate) fn wait_until_released(mut self) {
        let _ = self.line.expect(&Step::Released, PAUSED);
    }

    /// Says why it does not work. The other process hears it, or that this one has gone.
    pub(crate) fn fail(&mut self, why: &str) {
        let _ = self.line.step(&Step::Failed(why.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_arrives_whole_or_not_at_all() {
        let (here, there) = UnixStream::pair().unwrap();
        let (mut here, mut there) = (Line::new(here).unwrap(), Line::new(there).unwrap());
        let long = "x".repeat(1 << 20);
        let sending = std::thread::spawn(move || {
            here.send(&long).unwrap();
            here.step(&Step::Failed("no".to_owned())).unwrap();
            here.0.write_all(&7_u64.to_be_bytes()).unwrap();
            here.0.write_all(b"\"cut").unwrap();
        });
        assert_eq!(there.receive::<String>(PAUSED).unwrap().len(), 1 << 20);
        assert_eq!(there.expect(&Step::Ready, PAUSED).unwrap_err().to_string(), "no");
        assert_eq!(there.expect(&Step::Go, PAUSED).unwrap_err().to_string(), "the other process hung up");
        sending.join().unwrap();
    }

    #[test]
    fn a_length_that_cannot_be_is_refused_and_silence_has_an_end() {
        let (mut here, there) = UnixStream::pair().unwrap();
        let mut there = Line::new(there).unwrap();
        here.write_all(&u64::MAX.to_be_bytes()).unwrap();
        assert_eq!(there.receive::<Step>(PAUSED).unwrap_err().kind(), io::ErrorKind::InvalidData);
        let slow = there.expect(&Step::Go, Duration::from_millis(20)).unwrap_err();
        assert_eq!(slow.to_string(), "the other process takes too long");
    }
}
