//! `contrast measure tdx`.

use std::io::{self, Write};

use contrast_measure::{
    Firmware,
    tdx::{
        self, AcpiDigests, BootVariables, DirectBoot, Event, HostConfiguration, InitrdAddress,
        LoaderHeader, PageOrder, SecureBootVariables, TdHob, TdxError,
    },
};
use serde::Serialize;

use super::input::{LaunchFiles, firmware};
use crate::{
    commands::measure::{KernelHeader, Order, TdHobMeasuring, TdxArgs},
    diagnostic::{Diagnose, Failure},
    exit::Exit,
    output::{Output, Paint, Render},
    workspace,
};

/// The registers.
#[derive(Debug, Serialize)]
struct Measured {
    /// Hex.
    mrtd: String,
    rtmrs: Vec<Register>,
}

#[derive(Debug, Serialize)]
struct Register {
    name: &'static str,
    /// Hex, when it could be computed.
    value: Option<String>,
    /// Why it could not.
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<&'static str>,
    events: Vec<Extension>,
}

#[derive(Debug, Serialize)]
struct Extension {
    name: &'static str,
    /// Hex.
    digest: String,
}

impl Register {
    fn of(name: &'static str, events: Vec<Event>) -> Self {
        Self {
            name,
            value: Some(hex::encode(tdx::replay(&events))),
            missing: None,
            events: events
                .into_iter()
                .map(|event| Extension {
                    name: event.name,
                    digest: hex::encode(event.digest),
                })
                .collect(),
        }
    }

    fn missing(name: &'static str, why: &'static str) -> Self {
        Self {
            name,
            value: None,
            missing: Some(why),
            events: Vec::new(),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum MeasureError {
    #[error("{register} cannot be computed")]
    Register {
        register: &'static str,
        #[source]
        source: TdxError,
    },
    #[error(
        "expected --memory or --initrd-address: the address of the initrd in a filled header depends on them"
    )]
    NoInitrdAddress,
}

impl Diagnose for MeasureError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

pub(crate) fn run(args: &TdxArgs, output: &Output) -> Result<(), Failure> {
    let files = LaunchFiles::read(&args.launch)?;
    let firmware = firmware(&args.launch.ovmf, &files.ovmf)?;
    let order = match args.page_order {
        Order::Page => PageOrder::PageByPage,
        Order::Section => PageOrder::SectionBySection,
    };
    let mrtd = tdx::mrtd(&firmware, order).map_err(failed("MRTD"))?;
    let mut rtmrs = vec![rtmr0(args, &firmware)?];
    match &files.kernel {
        Some(kernel) => {
            let boot = DirectBoot {
                kernel,
                initrd: files.initrd.as_deref(),
                command_line: &args.launch.append,
                header: header(args)?,
            };
            let events = tdx::rtmr1(&boot).map_err(failed("RTMR1"))?;
            rtmrs.push(Register::of("RTMR1", events));
            rtmrs.push(Register::of("RTMR2", tdx::rtmr2(&boot)));
        }
        None => {
            let why = "no --kernel is given; what boots from a disk is not computed";
            rtmrs.extend(["RTMR1", "RTMR2"].map(|name| Register::missing(name, why)));
        }
    }
    rtmrs.push(Register {
        value: Some(hex::encode([0; 48])),
        ..Register::of("RTMR3", Vec::new())
    });
    let result = Measured {
        mrtd: hex::encode(mrtd),
        rtmrs,
    };
    output.result(args.format.format, &result)?;
    Ok(())
}

fn failed(register: &'static str) -> impl Fn(TdxError) -> MeasureError {
    move |source| MeasureError::Register { register, source }
}

fn rtmr0(args: &TdxArgs, firmware: &Firmware<'_>) -> Result<Register, Failure> {
    let (Some(loader), Some(rsdp), Some(tables)) =
        (&args.acpi_loader, &args.acpi_rsdp, &args.acpi_tables)
    else {
        let why = "QEMU's ACPI files are not given: --acpi-loader, --acpi-rsdp, --acpi-tables";
        return Ok(Register::missing("RTMR0", why));
    };
    let td_hob = match (args.td_hob, args.memory) {
        (TdHobMeasuring::NotMeasured, _) => TdHob::NotMeasured,
        (TdHobMeasuring::Measured, Some(memory)) => TdHob::Qemu { memory },
        (TdHobMeasuring::Measured, None) => {
            let why = "the list of memory is measured, and no --memory is given";
            return Ok(Register::missing("RTMR0", why));
        }
    };
    let read = |path| workspace::read("ACPI file", path, "");
    let host = HostConfiguration {
        td_hob,
        acpi: AcpiDigests::of(&read(loader)?, &read(rsdp)?, &read(tables)?),
        secure_boot: SecureBootVariables::default(),
        boot: BootVariables::default(),
    };
    let events = tdx::rtmr0(firmware, &host).map_err(failed("RTMR0"))?;
    Ok(Register::of("RTMR0", events))
}

fn header(args: &TdxArgs) -> Result<LoaderHeader, MeasureError> {
    let initrd = match (args.kernel_header, args.initrd_address, args.memory) {
        (KernelHeader::Unchanged, _, _) => return Ok(LoaderHeader::Unchanged),
        (KernelHeader::Filled, Some(address), _) => InitrdAddress::Fixed(address),
        (KernelHeader::Filled, None, Some(memory)) => InitrdAddress::Highest(memory),
        // Without an initrd nothing is said about its address.
        (KernelHeader::Filled, None, None) if args.launch.initrd.is_none() => {
            InitrdAddress::Fixed(0)
        }
        (KernelHeader::Filled, None, None) => return Err(MeasureError::NoInitrdAddress),
    };
    Ok(LoaderHeader::Filled { initrd })
}

impl Render for Measured {
    fn text(&self, out: &mut dyn Write, paint: Paint) -> io::Result<()> {
        writeln!(out, "{}   {}", paint.strong("MRTD"), self.mrtd)?;
        for register in &self.rtmrs {
            let name = paint.strong(register.name);
            match (&register.value, register.missing) {
                (Some(value), _) => writeln!(out, "{name}  {value}")?,
                (None, why) => writeln!(out, "{name}  not computed: {}", why.unwrap_or_default())?,
            }
        }
        for register in self
            .rtmrs
            .iter()
            .filter(|register| !register.events.is_empty())
        {
            writeln!(
                out,
                "\n{}",
                paint.strong(&format!("events of {}", register.name))
            )?;
            for event in &register.events {
                writeln!(out, "{:<31}  {}", event.name, event.digest)?;
            }
        }
        Ok(())
    }
}
