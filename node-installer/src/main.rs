//! Parses the command line and runs the command.

use std::process::ExitCode;

use clap::Parser as _;
use contrast_node_installer::{
    NOT_STARTED, app,
    args::{Cli, Command},
    chain,
    host::enter_and_exec,
};
use contrast_telemetry::logging;
use rustix::{fs::Mode, process::umask};

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Command::HostExec(args) = &cli.command {
        let (program, arguments) = args
            .program
            .split_first()
            .map_or(("", &[][..]), |(program, arguments)| {
                (program.as_str(), arguments)
            });
        let error = enter_and_exec(args.pid, program, arguments);
        return fail(&error, NOT_STARTED);
    }
    if let Err(error) = logging::init(&cli.global.logging) {
        return fail(&error, 2);
    }
    // Permissions on the host are those that the configuration says, whatever the pod's are.
    umask(Mode::from_raw_mode(0o022));
    match app::run(&cli.global, &cli.command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => fail(&error, error.exit_code()),
    }
}

#[expect(clippy::print_stderr, reason = "the edge where errors reach a person")]
fn fail(error: &dyn std::error::Error, code: u8) -> ExitCode {
    eprintln!("error: {}", chain(error));
    ExitCode::from(code)
}
