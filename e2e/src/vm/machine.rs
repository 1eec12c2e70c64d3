use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::{Disk, image::image};

const POLL: Duration = Duration::from_millis(10);
/// What goes into a machine in one command; Linux takes arguments of at most 128 KiB.
const PUT_BYTES: usize = 32 * 1024;
const BOOT_DEADLINE: Duration = Duration::from_secs(60);
/// How long one command may take in the machine, unless it is said otherwise.
const COMMAND_DEADLINE: Duration = Duration::from_secs(120);

/// A machine that runs; its power goes when this is dropped.
#[derive(Debug)]
pub struct Machine {
    qemu: Child,
    requests: UnixStream,
    answers: BufReader<UnixStream>,
    directory: PathBuf,
    name: String,
}

/// What a machine has besides its disks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// A network card, over which [`FORWARDED`] is this address and nothing else is reached.
    pub forward: Option<SocketAddr>,
}

/// Where a machine reaches the address that is forwarded.
pub const FORWARDED: &str = "10.0.2.100:7777";

/// How a command in a machine ended.
#[derive(Debug, Deserialize)]
pub struct Said {
    /// Exit status.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Machine {
    /// Boots a machine whose disks are `/dev/vda` and so on. Its sockets and its console are in `directory`.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn boot(directory: &Path, name: &str, disks: &[&Disk], options: Options) -> Result<Self> {
        let image = image()?;
        let socket = directory.join(format!("{name}.agent"));
        let console = directory.join(format!("{name}.console"));
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-machine", "q35,accel=tcg", "-cpu", "max", "-m", "640"])
            .args(["-display", "none", "-no-reboot", "-nodefaults"])
            .args([
                "-append",
                "console=ttyS0 quiet panic=-1 random.trust_cpu=on",
            ])
            .args(["-serial", "stdio"])
            .args(["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"])
            .arg("-kernel")
            .arg(&image.kernel)
            .arg("-initrd")
            .arg(&image.root)
            .arg("-chardev")
            .arg(format!(
                "socket,id=agent,server=on,wait=off,path={}",
                socket.display()
            ))
            .args([
                "-device",
                "virtserialport,chardev=agent,name=org.contrast.agent",
            ]);
        for (position, disk) in disks.iter().enumerate() {
            for device in disk.block_devices(&format!("disk{position}")) {
                qemu.args(["-blockdev", &device]);
            }
            let device = format!("virtio-blk-pci,drive=disk{position},id=card{position}");
            qemu.args(["-device", &device]);
        }
        if let Some(address) = options.forward {
            // A program for each connection; what QEMU itself forwards is one connection only.
            let (host, port) = (address.ip(), address.port());
            let network = format!(
                "user,id=net,restrict=on,guestfwd=tcp:{FORWARDED}-cmd:busybox nc {host} {port}"
            );
            qemu.args(["-netdev", &network, "-device", "virtio-net-pci,netdev=net"]);
        }
        let output = File::create(&console)?;
        let qemu = qemu
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("cannot start QEMU")?;
        let begun = Instant::now();
        let stream = loop {
            match UnixStream::connect(&socket) {
                Ok(stream) => break stream,
                Err(error) if begun.elapsed() > BOOT_DEADLINE => return Err(error.into()),
                Err(_) => sleep(POLL),
            }
        };
        stream.set_read_timeout(Some(BOOT_DEADLINE))?;
        let mut machine = Self {
            qemu,
            requests: stream.try_clone()?,
            answers: BufReader::new(stream),
            directory: directory.to_owned(),
            name: name.to_owned(),
        };
        machine
            .run("true")
            .with_context(|| format!("the machine did not come up: {}", machine.console()))?;
        if options.forward.is_some() {
            machine.succeed(
                "ip link set lo up && ip link set eth0 up && ip addr add 10.0.2.15/24 dev eth0",
            )?;
        }
        machine
            .answers
            .get_ref()
            .set_read_timeout(Some(COMMAND_DEADLINE))?;
        Ok(machine)
    }

    /// Lets the shell of the machine run something.
    ///
    /// # Errors
    /// When the machine does not answer in time.
    pub fn run(&mut self, script: &str) -> Result<Said> {
        let request = serde_json::to_string(&["sh", "-c", script])?;
        writeln!(self.requests, "{request}")?;
        let mut answer = String::new();
        self.answers
            .read_line(&mut answer)
            .with_context(|| format!("`{script}` did not end\n{}", self.console()))?;
        serde_json::from_str(&answer).with_context(|| format!("`{script}`: {}", self.console()))
    }

    /// As [`Machine::run`], for what must succeed; returns what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn succeed(&mut self, script: &str) -> Result<String> {
        let said = self.run(script)?;
        ensure!(
            said.status == 0,
            "`{script}` ended with {}: {}{}",
            said.status,
            said.stdout,
            said.stderr
        );
        Ok(said.stdout)
    }

    /// Puts a file into the machine.
    ///
    /// # Errors
    /// When it cannot be written there.
    pub fn put(&mut self, path: &str, content: &[u8]) -> Result<()> {
        self.succeed(&format!("mkdir -p $(dirname {path}) && : > {path}"))?;
        for chunk in content.chunks(PUT_BYTES) {
            let digits = hex::encode(chunk);
            self.succeed(&format!("echo {digits} | xxd -r -p >> {path}"))?;
        }
        Ok(())
    }

    /// Waits until a script succeeds.
    ///
    /// # Errors
    /// When it does not within `deadline`; the error has what it printed at last.
    pub fn wait_until(&mut self, script: &str, deadline: Duration) -> Result<()> {
        let begun = Instant::now();
        loop {
            let said = self.run(script)?;
            if said.status == 0 {
                return Ok(());
            }
            if begun.elapsed() > deadline {
                bail!(
                    "still waiting for `{script}`: {}{}",
                    said.stdout,
                    said.stderr
                );
            }
            sleep(Duration::from_millis(50));
        }
    }

    /// What the kernel printed.
    pub fn console(&self) -> String {
        let path = self.directory.join(format!("{}.console", self.name));
        let text = fs::read(path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let start = text.len().saturating_sub(4000);
        let start = (start..=text.len()).find(|start| text.is_char_boundary(*start));
        text.get(start.unwrap_or_default()..)
            .unwrap_or_default()
            .to_owned()
    }

    /// Takes the power away, as it happens: nothing that was not on a disk gets there any more.
    ///
    /// # Errors
    /// When QEMU cannot be ended.
    pub fn cut_power(mut self) -> Result<()> {
        self.qemu.kill()?;
        self.qemu.wait()?;
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
