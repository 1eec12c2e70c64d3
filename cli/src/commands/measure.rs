//! `contrast measure`: what the evidence of a VM will say, from what it is launched with.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use contrast_measure::{VcpuType, tdx::MemorySize};

use crate::{
    args::FormatArgs,
    diagnostic::Failure,
    measure::{
        input::{VcpuCounts, hex_u32, hex_u64, memory, vcpu_type},
        pod, snp, tdx,
    },
    output::Output,
};

const TDX_HELP: &str = "RTMR0 is that of firmware up to edk2-stable202502, without Secure Boot. Newer firmware measures \
                        more, which this command does not know; the other registers are the same.";

/// `contrast measure`.
#[derive(Debug, Args)]
pub struct MeasureArgs {
    /// What to measure.
    #[command(subcommand)]
    pub command: MeasureCommand,
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum MeasureCommand {
    /// Print the SEV-SNP launch digest for each number of vCPUs
    Snp(Box<SnpArgs>),
    /// Print MRTD and RTMR0 to RTMR2 of a TDX guest
    #[command(after_help = TDX_HELP)]
    Tdx(Box<TdxArgs>),
    /// Print how many vCPUs each pod's VM has, and why
    Pod(PodArgs),
}

/// The files that a VM is launched with.
#[derive(Debug, Args)]
pub struct LaunchArgs {
    /// Firmware: the image that QEMU gets with `-bios`, code and variables in one file
    #[arg(long, value_name = "FILE")]
    pub ovmf: PathBuf,

    /// Kernel, as QEMU gets it with `-kernel`; without it what boots from a disk
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,

    /// Initrd, as QEMU gets it with `-initrd`
    #[arg(long, value_name = "FILE", requires = "kernel")]
    pub initrd: Option<PathBuf>,

    /// Kernel command line, as QEMU gets it with `-append`
    #[arg(long, value_name = "STRING", requires = "kernel", default_value = "")]
    #[arg(hide_default_value = true, allow_hyphen_values = true)]
    pub append: String,
}

/// `contrast measure snp`.
#[derive(Debug, Args)]
pub struct SnpArgs {
    /// What is launched.
    #[command(flatten)]
    pub launch: LaunchArgs,

    /// vCPU type as QEMU's `-cpu` names it, for example EPYC-v4, EPYC-Milan, EPYC-Genoa or EPYC-Turin
    #[arg(long, value_name = "TYPE", value_parser = vcpu_type)]
    pub vcpu_type: VcpuType,

    /// Numbers of vCPUs: N, N..M (both included), or several of them with commas; 1 to 220
    #[arg(long, value_name = "COUNTS", default_value = "1")]
    pub vcpus: VcpuCounts,

    /// SEV_FEATURES of the vCPUs
    #[arg(long, value_name = "HEX", value_parser = hex_u64, default_value = "0x1")]
    pub guest_features: u64,

    /// Directory for an ID block of each digest, as QEMU takes it: `N.id-block` and `N.id-auth`, base64
    #[arg(long, value_name = "DIR")]
    pub id_blocks: Option<PathBuf>,

    /// Key that signs ID blocks: PKCS#8, PEM, P-384 [default: one that nobody keeps]
    #[arg(long, value_name = "FILE", requires = "id_blocks")]
    pub id_key: Option<PathBuf>,

    /// Guest policy of ID blocks; the default allows SMT
    #[arg(long, value_name = "HEX", requires = "id_blocks")]
    #[arg(value_parser = hex_u64, default_value = "0x30000")]
    pub guest_policy: u64,

    /// Shape of the result.
    #[command(flatten)]
    pub format: FormatArgs,
}

/// `contrast measure tdx`.
#[derive(Debug, Args)]
pub struct TdxArgs {
    /// What is launched.
    #[command(flatten)]
    pub launch: LaunchArgs,

    /// Memory of the VM, for example 2048M or 2G
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    pub memory: Option<MemorySize>,

    /// QEMU's ACPI file `etc/table-loader`; RTMR0 needs all three
    #[arg(long, value_name = "FILE", requires = "acpi_rsdp")]
    pub acpi_loader: Option<PathBuf>,

    /// QEMU's ACPI file `etc/acpi/rsdp`
    #[arg(long, value_name = "FILE", requires = "acpi_tables")]
    pub acpi_rsdp: Option<PathBuf>,

    /// QEMU's ACPI file `etc/acpi/tables`
    #[arg(long, value_name = "FILE", requires = "acpi_loader")]
    pub acpi_tables: Option<PathBuf>,

    /// Whether the firmware measures the list of memory: measured or not-measured
    #[arg(long, value_enum, value_name = "HOW", default_value = "measured")]
    #[arg(hide_possible_values = true)]
    pub td_hob: TdHobMeasuring,

    /// The kernel's header as the firmware sees it: unchanged (QEMU 10.2 and newer) or filled (before)
    #[arg(long, value_enum, value_name = "HOW", default_value = "unchanged")]
    #[arg(hide_possible_values = true)]
    pub kernel_header: KernelHeader,

    /// Where a filled header says that the initrd is [default: as high as possible, as QEMU does it]
    #[arg(long, value_name = "HEX", value_parser = hex_u32)]
    pub initrd_address: Option<u32>,

    /// When the host measures pages: page (each when it was added; Linux 6.16 and newer) or section (all of a section at
    /// once)
    #[arg(long, value_enum, value_name = "ORDER", default_value = "page")]
    #[arg(hide_possible_values = true)]
    pub page_order: Order,

    /// Shape of the result.
    #[command(flatten)]
    pub format: FormatArgs,
}

/// Whether the firmware measures the TD HOB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TdHobMeasuring {
    /// As EDK II does it.
    Measured,
    /// A firmware that checks the list instead.
    NotMeasured,
}

/// What QEMU makes of the kernel's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KernelHeader {
    /// Nothing.
    Unchanged,
    /// It plays the boot loader.
    Filled,
}

/// In which order pages are added and measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// Page by page.
    Page,
    /// Section by section.
    Section,
}

/// `contrast measure pod`.
#[derive(Debug, Args)]
pub struct PodArgs {
    /// Kubernetes YAML: files, or directories that are searched
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,

    /// Shape of the result.
    #[command(flatten)]
    pub format: FormatArgs,
}

pub(super) fn run(args: &MeasureArgs, output: &Output) -> Result<(), Failure> {
    match &args.command {
        MeasureCommand::Snp(args) => snp::run(args, output),
        MeasureCommand::Tdx(args) => tdx::run(args, output),
        MeasureCommand::Pod(args) => pod::run(args, output),
    }
}
