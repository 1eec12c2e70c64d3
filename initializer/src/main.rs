//! Parses the configuration and runs the Initializer.

use std::{process::ExitCode, time::Duration};

use clap::Parser as _;
use contrast_clock::SystemEntropy;
use contrast_initializer::{
    Command, Config, check_initdata, deny_ingress, image_store, is_installed, pull_image, run,
    serve_images, standalone,
};
use contrast_telemetry::{
    exposure::{Exposure, PUBLIC},
    logging,
    memory::forbid_core_dumps,
};
use contrast_volume::is_mounted;
use tokio::runtime::Runtime;

/// For work that cannot be cancelled, such as a registry that is asked; what it leaves is removed by the next one who opens the store.
const GRACE: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(error.into()),
    };
    let code = runtime.block_on(chosen());
    runtime.shutdown_timeout(GRACE);
    code
}

async fn chosen() -> ExitCode {
    let config = Config::parse();
    if config.check_ready {
        return if is_ready(&config) {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    let _traces = match logging::init_traced(&config.logging, "contrast-initializer") {
        Ok(traces) => traces,
        Err(error) => return fail(error.into()),
    };
    if let Err(error) = forbid_core_dumps() {
        return fail(error.into());
    }
    let exposed = config.logging.log_exposure;
    let outcome: anyhow::Result<()> = match config.command.clone() {
        Some(Command::DenyIngress) => deny_ingress().map_err(Into::into),
        Some(Command::Cryptsetup(options)) => standalone(options).await.map_err(Into::into),
        Some(Command::ImageStore {
            device,
            mount_point,
        }) => image_store(device, mount_point).await.map_err(Into::into),
        Some(Command::CheckInitdata(options)) => {
            check_initdata(&options, &config.issuer(), &SystemEntropy).map_err(Into::into)
        }
        Some(Command::PullImage(arguments)) => pull_image(&arguments).map_err(Into::into),
        Some(Command::ServeImages(options)) => serve_images(&options).await.map_err(Into::into),
        None => run(config).await.map_err(Into::into),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if exposed == Exposure::Public => {
            tracing::error!(
                exposure = PUBLIC,
                "the Initializer failed; why may not leave this pod"
            );
            ExitCode::FAILURE
        }
        Err(error) => fail(error),
    }
}

/// The volume counts by itself: the container before this one may have left the certificate.
fn is_ready(config: &Config) -> bool {
    let volume = &config.volume;
    let mounted = volume.device.is_none() || is_mounted(&volume.mount_point);
    mounted && is_installed(&config.base_dir)
}

#[expect(clippy::print_stderr, reason = "the edge where errors reach a person")]
fn fail(error: anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}
