//! A machine with a disk, and the Initializer in it.

use std::time::Duration;

use contrast_e2e::vm::{Disk, Machine, Options, Said, why_not, why_not_long};
use tempfile::TempDir;

/// Size of a disk on which little is written, MiB.
pub(crate) const SMALL: u64 = 48;
pub(crate) const OPEN_DEADLINE: Duration = Duration::from_secs(90);

/// What a story plays with.
pub(crate) struct Bench {
    pub(crate) directory: TempDir,
}

impl Bench {
    /// Says why it is skipped, if it is.
    pub(crate) fn set_up(story: &str) -> Option<Self> {
        Self::unless(story, why_not())
    }

    /// As [`Bench::set_up`], for a story that takes minutes.
    pub(crate) fn set_up_long(story: &str) -> Option<Self> {
        Self::unless(story, why_not_long())
    }

    fn unless(story: &str, reason: Option<String>) -> Option<Self> {
        if let Some(reason) = reason {
            eprintln!("SKIPPED {story}: {reason}");
            return None;
        }
        let directory = TempDir::new().expect("directory");
        Some(Self { directory })
    }

    pub(crate) fn disk(&self, name: &str, mebibytes: u64) -> Disk {
        Disk::blank(self.directory.path(), name, mebibytes).expect("disk")
    }

    pub(crate) fn boot(&self, name: &str, disks: &[&Disk]) -> Guest {
        let machine = Machine::boot(self.directory.path(), name, disks, Options::default());
        let mut guest = Guest(machine.expect("machine"));
        guest
            .0
            .succeed(&secret_file("secret", 'a'))
            .expect("secret");
        guest
            .0
            .succeed(&secret_file("other-secret", 'b'))
            .expect("secret");
        guest
    }
}

/// Each line is written when the one before is safe. The last one may not be, and is then whatever ext4 has at the end of a file that grew: the line, a part of
/// it, or zeros.
pub(crate) fn check_ledger(lines: &str, safe: u64, which: &str) {
    let found = lines.lines().count() as u64;
    assert!(
        found >= safe,
        "{which}: {safe} lines were safe, {found} are there"
    );
    for (line, number) in lines.lines().zip(1..) {
        let expected = format!("line {number} of the ledger");
        let is_open = number == found && number > safe;
        let rest = line.trim_end_matches('\0');
        match is_open {
            true => assert!(expected.starts_with(rest), "{which}: {line:?}"),
            false => assert_eq!(line, expected, "{which}"),
        }
    }
}

fn secret_file(name: &str, digit: char) -> String {
    let digits: String = std::iter::repeat_n(digit, 128).collect();
    format!("printf {digits} > /contrast/{name}")
}

/// The first disk, unless the options name another device.
fn device(options: &str) -> &'static str {
    match options.contains("-d ") {
        true => "",
        false => "-d /dev/vda",
    }
}

/// A machine in which volumes are opened.
pub(crate) struct Guest(pub(crate) Machine);

impl Guest {
    pub(crate) fn succeed(&mut self, script: &str) -> String {
        self.0.succeed(script).expect("command")
    }

    /// Opens `/dev/vda` and stays.
    pub(crate) fn open(&mut self) {
        self.open_with("");
    }

    /// As [`Guest::open`], with more options.
    pub(crate) fn open_with(&mut self, options: &str) {
        self.succeed(&format!(
            "initializer cryptsetup {} -m /state --secret-file /contrast/secret {options} > /tmp/log 2>&1 & echo $! > /tmp/pid",
            device(options)
        ));
        self.wait_until_open();
    }

    /// Waits until the Initializer has opened the volume.
    pub(crate) fn wait_until_open(&mut self) {
        let waited = self.0.wait_until(
            "grep -q 'volume is mounted' /tmp/log || { kill -0 $(cat /tmp/pid) || { cat /tmp/log; echo; exit 0; }; exit 1; }",
            OPEN_DEADLINE,
        );
        waited.expect("opened");
        let log = self.succeed("cat /tmp/log");
        assert!(log.contains("volume is mounted"), "{log}");
    }

    /// Ends the Initializer as Kubernetes does.
    pub(crate) fn close(&mut self) {
        self.succeed("kill -TERM $(cat /tmp/pid)");
        let ended = self
            .0
            .wait_until("! kill -0 $(cat /tmp/pid) 2>/dev/null", OPEN_DEADLINE);
        ended.expect("ended");
        let log = self.succeed("cat /tmp/log");
        assert!(log.contains("volume is closed"), "{log}");
    }

    /// Tries to open `/dev/vda`, and returns the error.
    pub(crate) fn refused(&mut self) -> String {
        self.refused_with("--secret-file /contrast/secret")
    }

    /// As [`Guest::refused`], with other options.
    pub(crate) fn refused_with(&mut self, options: &str) -> String {
        let script = format!(
            "initializer cryptsetup {} -m /state {options}",
            device(options)
        );
        let Said {
            status,
            stdout,
            stderr,
        } = self.0.run(&script).expect("command");
        assert_ne!(status, 0, "opened: {stdout}{stderr}");
        let left = self.succeed("dmsetup ls");
        assert!(left.contains("No devices"), "{left}");
        stderr
    }
}
