//! What a data-path thread waits with: [`Poller`] on its sockets and devices, [`Waker`] for word from another thread.
//!
//! Readiness is level-triggered (`epoll(7)`): what was not read to the end is reported again.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest(EpollFlags);

impl Interest {
    /// Something can be read.
    pub const READ: Self = Self(EpollFlags::EPOLLIN);
    /// Something can be written.
    pub const WRITE: Self = Self(EpollFlags::EPOLLOUT);
    /// Either.
    pub const BOTH: Self = Self(EpollFlags::EPOLLIN.union(EpollFlags::EPOLLOUT));
}

/// One thing that is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The token it was added with.
    pub token: u64,
    /// It can be read, or reading will say what is wrong with it.
    pub readable: bool,
    /// It can be written, or writing will say what is wrong with it.
    pub writable: bool,
}

/// Room for what one wait reports.
#[derive(Debug)]
pub struct Events {
    events: Vec<EpollEvent>,
    count: usize,
}

impl Events {
    /// Room for `capacity` (at least one) things; more are reported by the next wait.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { events: vec![EpollEvent::empty(); capacity.max(1)], count: 0 }
    }

    /// What the last wait reported.
    pub fn iter(&self) -> impl Iterator<Item = Ready> {
        let wrong = EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP;
        self.events.iter().take(self.count).map(move |event| Ready {
            token: event.data(),
            readable: event.events().intersects(wrong | EpollFlags::EPOLLIN),
            writable: event.events().intersects(wrong | EpollFlags::EPOLLOUT),
        })
    }
}

/// Waits for several files at once.
#[derive(Debug)]
pub struct Poller(Epoll);

impl Poller {
    /// A poller that waits for nothing yet.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?))
    }

    /// Waits for `file` too. A file that is closed is forgotten.
    ///
    /// # Errors
    /// `AlreadyExists` when it is waited for.
    pub fn add(&self, file: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(self.0.add(file, EpollEvent::new(interest.0, token))?)
    }

    /// Changes the token and what is waited for.
    pub fn change(&self, file: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(self.0.modify(file, &mut EpollEvent::new(interest.0, token))?)
    }

    /// Waits for `file` no more.
    pub fn remove(&self, file: impl AsFd) -> io::Result<()> {
        Ok(self.0.delete(file)?)
    }

    /// Waits until something is ready or `timeout` has passed; `None` waits for ever. The timeout is rounded up to a
    /// millisecond. A signal ends it early with nothing.
    pub fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        events.count = 0;
        match self.0.wait(&mut events.events, milliseconds(timeout)) {
            Ok(count) => events.count = count,
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        Ok(())
    }
}

fn milliseconds(timeout: Option<Duration>) -> EpollTimeout {
    let Some(timeout) = timeout else { return EpollTimeout::NONE };
    let rounded_up = timeout.as_nanos().div_ceil(1_000_000);
    EpollTimeout::from(u16::try_from(rounded_up).unwrap_or(u16::MAX))
}

/// Wakes a thread that waits in [`Poller::wait`]: that thread adds it to its poller, another calls
/// [`Waker::wake`].
#[derive(Debug)]
pub struct Waker(EventFd);

impl Waker {
    /// A waker that has not woken anyone.
    pub fn new() -> io::Result<Self> {
        Ok(Self(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?))
    }

    /// Makes the waker readable. Many wakes before [`Waker::clear`] count as one.
    pub fn wake(&self) {
        // EAGAIN: it has been woken 2^64 - 2 times, so it is awake.
        let _ = self.0.write(1);
    }

    /// Makes the waker unreadable again. Clear first, then look at what the wake was about: a wake between the two is
    /// not lost.
    pub fn clear(&self) {
        // EAGAIN: nobody has woken it.
        let _ = self.0.read();
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    fn tokens(poller: &Poller, timeout: Option<Duration>) -> Vec<Ready> {
        let mut events = Events::with_capacity(4);
        poller.wait(&mut events, timeout).unwrap();
        events.iter().collect()
    }

    #[test]
    fn a_wake_from_another_thread_ends_the_wait_and_stays_until_it_is_cleared() {
        let (poller, waker) = (Poller::new().unwrap(), Arc::new(Waker::new().unwrap()));
        poller.add(&*waker, 7, Interest::READ).unwrap();
        assert!(tokens(&poller, Some(Duration::ZERO)).is_empty());
        let other = thread::spawn({
            let waker = Arc::clone(&waker);
            move || waker.wake()
        });
        let awake = [Ready { token: 7, readable: true, writable: false }];
        assert_eq!(tokens(&poller, None), awake);
        other.join().unwrap();
        assert_eq!(tokens(&poller, None), awake);
        waker.clear();
        waker.clear();
        assert!(tokens(&poller, Some(Duration::ZERO)).is_empty());
    }

    #[test]
    fn what_is_waited_for_can_be_changed_and_removed() {
        let (poller, waker) = (Poller::new().unwrap(), Waker::new().unwrap());
        poller.add(&waker, 1, Interest::READ).unwrap();
        assert_eq!(poller.add(&waker, 1, Interest::READ).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        poller.change(&waker, 2, Interest::BOTH).unwrap();
        assert_eq!(tokens(&poller, None), [Ready { token: 2, readable: false, writable: true }]);
        poller.remove(&waker).unwrap();
        assert!(tokens(&poller, Some(Duration::ZERO)).is_empty());
    }

    #[test]
    fn a_timeout_is_rounded_up_so_that_a_wait_does_not_end_before_it() {
        assert_eq!(milliseconds(Some(Duration::ZERO)), EpollTimeout::ZERO);
        assert_eq!(milliseconds(Some(Duration::from_micros(1))), EpollTimeout::from(1u16));
        assert_eq!(milliseconds(Some(Duration::from_micros(1_001))), EpollTimeout::from(2u16));
        assert_eq!(milliseconds(None), EpollTimeout::NONE);
    }
}
