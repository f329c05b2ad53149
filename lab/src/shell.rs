//! The one way in which the lab runs other programs: each command can be shown as it could be
//! typed, and an error carries it.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::clock;
use crate::error::{Error, Result};
use crate::interrupt;

/// Where the lab writes what a person reads.
pub type Out = Box<dyn Write + Send>;

/// Runs programs, and writes to the person in front. Clones share the same output.
#[derive(Clone)]
pub struct Shell(Rc<Inner>);

struct Inner {
    out: RefCell<Out>,
    echo: bool,
}

/// What a program that ended by itself has said.
#[derive(Clone, Debug)]
pub struct Output {
    /// Whether its exit status was 0.
    pub ok: bool,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Shell {
    /// A shell that writes to `out`; with `echo` it writes each command first.
    pub fn new(out: Out, echo: bool) -> Self {
        Self(Rc::new(Inner { out: RefCell::new(out), echo }))
    }

    /// Writes one line for the person in front. That they have left is no reason to stop.
    pub fn say(&self, line: &str) {
        let mut out = self.0.out.borrow_mut();
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }

    fn echo(&self, line: &str) {
        if self.0.echo {
            self.say(&format!("  $ {line}"));
        }
    }

    /// Runs `words` to its end, whatever its exit status.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] when there is no such program, [`Error::Interrupted`] after Ctrl-C.
    pub fn output<S: AsRef<str>>(&self, words: &[S]) -> Result<Output> {
        interrupt::check()?;
        self.output_uninterrupted(words)
    }

    /// [`Shell::output`] for the clean-up, which also runs after Ctrl-C.
    pub(crate) fn output_uninterrupted<S: AsRef<str>>(&self, words: &[S]) -> Result<Output> {
        self.feed(words, None)
    }

    /// Runs `words` with `input` on its standard input.
    ///
    /// # Errors
    ///
    /// As [`Shell::run`].
    pub fn run_with_input<S: AsRef<str>>(&self, words: &[S], input: &str) -> Result<String> {
        interrupt::check()?;
        for line in input.lines() {
            self.echo(&format!("<<< {line}"));
        }
        succeed(words, self.feed(words, Some(input))?)
    }

    fn feed<S: AsRef<str>>(&self, words: &[S], input: Option<&str>) -> Result<Output> {
        self.echo(&typed(words));
        let mut child = command(words)
            .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| not_started(words, e))?;
        if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
            // A program that does not read all of its input says why on stderr.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output().map_err(|e| Error::io(typed(words), e))?;
        Ok(Output {
            ok: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs `words` to its end and returns what it wrote to standard output.
    ///
    /// # Errors
    ///
    /// [`Error::Command`] when its exit status is not 0.
    pub fn run<S: AsRef<str>>(&self, words: &[S]) -> Result<String> {
        succeed(words, self.output(words)?)
    }

    /// Starts `words` and leaves it running; its output goes to `log`. It gets a process group of
    /// its own (Ctrl-C in the terminal is for the lab, not for it) and dies with the lab, even if
    /// the lab is killed.
    ///
    /// # Errors
    ///
    /// When it or the log cannot be opened.
    pub fn spawn<S: AsRef<str>>(&self, words: &[S], env: &[(&str, &OsStr)], log: &Path) -> Result<Process> {
        self.spawn_reading(words, env, log, Stdio::null())
    }

    /// [`Shell::spawn`] with something to read on standard input.
    ///
    /// # Errors
    ///
    /// As [`Shell::spawn`].
    pub fn spawn_reading<S: AsRef<str>>(
        &self,
        words: &[S],
        env: &[(&str, &OsStr)],
        log: &Path,
        stdin: Stdio,
    ) -> Result<Process> {
        interrupt::check()?;
        let mut line = env.iter().map(|(k, v)| format!("{k}={} ", v.to_string_lossy())).collect::<String>();
        line.push_str(&typed(words));
        self.echo(&format!("{line} >{} 2>&1 &", log.display()));
        let file = File::create(log).map_err(|e| Error::io(format!("creating {}", log.display()), e))?;
        let both = file.try_clone().map_err(|e| Error::io("duplicating a log file", e))?;
        // The signal is sent when the thread that started the child ends: labs live in one thread.
        let mut all = vec!["setpriv", "--pdeathsig", "KILL"];
        all.extend(words.iter().map(AsRef::as_ref));
        let child = command(&all)
            .envs(env.iter().copied())
            .process_group(0)
            .stdin(stdin)
            .stdout(file)
            .stderr(both)
            .spawn()
            .map_err(|e| not_started(&all, e))?;
        Ok(Process { child, line })
    }
}

fn command<S: AsRef<str>>(words: &[S]) -> Command {
    let mut words = words.iter().map(AsRef::as_ref);
    let mut command = Command::new(words.next().unwrap_or("false"));
    command.args(words);
    command.env("LC_ALL", "C");
    // An ordinary user's PATH has no sbin, where most of the programs live.
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin"));
    command
}

fn succeed<S: AsRef<str>>(words: &[S], output: Output) -> Result<String> {
    if output.ok {
        return Ok(output.stdout);
    }
    let said = if output.stderr.trim().is_empty() { output.stdout } else { output.stderr };
    Err(Error::Command { line: typed(words), said })
}

fn not_started<S: AsRef<str>>(words: &[S], source: std::io::Error) -> Error {
    let program = words.first().map_or("", AsRef::as_ref);
    if source.kind() == std::io::ErrorKind::NotFound {
        return Error::Missing { what: format!("the program {program}"), install: package_of(program).into() };
    }
    Error::io(typed(words), source)
}

/// How to get a program that the lab runs.
pub(crate) fn package_of(program: &str) -> &'static str {
    match program {
        "ip" | "tc" => "apt-get install iproute2",
        "nft" => "apt-get install nftables",
        "ping" => "apt-get install iputils-ping",
        "sysctl" => "apt-get install procps",
        "swanctl" => "apt-get install charon-systemd strongswan-swanctl",
        "setpriv" | "unshare" => "apt-get install util-linux",
        "conntrack" => "apt-get install conntrack",
        "busybox" => "apt-get install busybox-static",
        _ => "see its documentation",
    }
}

/// Whether a program can be found.
pub(crate) fn installed(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').chain(["/usr/local/sbin", "/usr/sbin", "/sbin"]).any(|dir| Path::new(dir).join(program).is_file())
}

/// The words as a line for a POSIX shell.
pub(crate) fn typed<S: AsRef<str>>(words: &[S]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    let quoted = words.iter().map(AsRef::as_ref).map(|word: &str| {
        if !word.is_empty() && word.chars().all(plain) {
            word.to_owned()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// A running program; dropping it ends it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    line: String,
}

impl Process {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The command as it was started.
    pub fn line(&self) -> &str {
        &self.line
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for it to end by itself; whether it ended with status 0.
    ///
    /// # Errors
    ///
    /// [`Error::Late`] after `limit`.
    pub fn finish(&mut self, limit: Duration) -> Result<bool> {
        let what = format!("the end of `{}`", self.line);
        clock::wait_for(&what, limit, || Ok(!self.is_running()))?;
        Ok(self.child.wait().is_ok_and(|status| status.success()))
    }

    /// Asks it to end, then makes it; returns when it is gone.
    pub fn stop(&mut self) {
        self.stop_after(Duration::from_millis(800));
    }

    /// Ends it without asking, with all of its process group.
    pub fn kill(&mut self) {
        if let Some(pid) = self.pid_to_signal() {
            let _ = killpg(pid, Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }

    fn stop_after(&mut self, patience: Duration) {
        let Some(pid) = self.pid_to_signal() else { return };
        let _ = kill(pid, Signal::SIGTERM);
        let end = clock::now() + patience;
        while clock::now() < end && self.is_running() {
            clock::sleep_through(Duration::from_millis(5));
        }
        self.kill();
    }

    // Only while it has not been waited for: after that the number may belong to another.
    fn pid_to_signal(&mut self) -> Option<Pid> {
        if !self.is_running() {
            return None;
        }
        i32::try_from(self.child.id()).ok().map(Pid::from_raw)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_so_that_a_shell_reads_the_same_words() {
        assert_eq!(typed(&["ip", "-n", "a", "link"]), "ip -n a link");
        assert_eq!(typed(&["nft", "add rule; it's", ""]), r"nft 'add rule; it'\''s' ''");
    }

    #[test]
    fn a_failed_command_is_an_error_that_shows_it() {
        let shell = Shell::new(Box::new(std::io::sink()), false);
        let error = shell.run(&["sh", "-c", "echo no >&2; exit 3"]).unwrap_err().to_string();
        assert_eq!(error, "`sh -c 'echo no >&2; exit 3'` failed: no\n".trim_end());
        let error = shell.run(&["no-such-program-here"]).unwrap_err();
        assert!(matches!(error, Error::Missing { .. }), "{error}");
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let shell = Shell::new(Box::new(std::io::sink()), false);
        let log = std::env::temp_dir().join(format!("simplon-shell-test-{}", std::process::id()));
        let process = shell.spawn(&["sleep", "100"], &[], &log).unwrap();
        let proc_dir = format!("/proc/{}", process.pid());
        assert!(Path::new(&proc_dir).exists());
        drop(process);
        assert!(!Path::new(&proc_dir).exists());
        std::fs::remove_file(log).unwrap();
    }
}
