//! `contrast measure snp`.

use std::{
    io::{self, Write},
    path::Path,
};

use aws_lc_rs::{
    error::{KeyRejected, Unspecified},
    rand::SystemRandom,
    signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use contrast_measure::{
    GuestFeatures, IdAuth, IdAuthError, IdBlock, KernelHashes, Sha384Digest, SnpError, SnpLaunch,
    VcpuCount,
};
use serde::Serialize;

use super::input::{LaunchFiles, firmware};
use crate::{
    commands::measure::SnpArgs,
    diagnostic::{Diagnose, Failure},
    exit::Exit,
    output::{Output, Paint, Render},
    workspace,
};

/// Ids and SVN of ID blocks; reports repeat them.
const FAMILY_ID: [u8; 16] = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const IMAGE_ID: [u8; 16] = [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const GUEST_SVN: u32 = 2;

/// The launch digests.
#[derive(Debug, Serialize)]
struct Measured {
    vcpu_type: String,
    /// SEV_FEATURES, hex.
    guest_features: String,
    /// SHA-256, absent without a kernel.
    kernel: Option<Hashes>,
    digests: Vec<Launch>,
}

/// What the firmware will accept, hex.
#[derive(Debug, Serialize)]
struct Hashes {
    kernel: String,
    initrd: String,
    command_line: String,
}

#[derive(Debug, Serialize)]
struct Launch {
    vcpus: u32,
    /// MEASUREMENT, hex.
    launch_digest: String,
    /// ID_KEY_DIGEST, hex, when an ID block was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    id_key_digest: Option<String>,
}

#[derive(Debug, thiserror::Error)]
enum MeasureError {
    #[error("the launch digest cannot be computed")]
    Launch(#[from] SnpError),
    #[error("`{path}` is no private key for P-384 in PKCS#8, PEM")]
    NotPem {
        path: String,
        #[source]
        source: pem::PemError,
    },
    #[error("`{path}` is no private key for P-384 in PKCS#8, PEM: {source}")]
    Key { path: String, source: KeyRejected },
    #[error("no key could be made for the ID blocks")]
    Generate(#[source] Unspecified),
    #[error("the ID block cannot be signed")]
    Sign(#[from] IdAuthError),
}

impl Diagnose for MeasureError {
    fn exit(&self) -> Exit {
        match self {
            Self::Launch(_) | Self::NotPem { .. } | Self::Key { .. } => Exit::Usage,
            Self::Generate(_) | Self::Sign(_) => Exit::Internal,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::NotPem { .. } | Self::Key { .. } => vec![
                "make one with `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384`"
                    .into(),
            ],
            _ => Vec::new(),
        }
    }
}

pub(crate) fn run(args: &SnpArgs, output: &Output) -> Result<(), Failure> {
    let files = LaunchFiles::read(&args.launch)?;
    let firmware = firmware(&args.launch.ovmf, &files.ovmf)?;
    let kernel = files.kernel.map(|kernel| {
        let initrd = files.initrd.unwrap_or_default();
        KernelHashes::of(&kernel, &initrd, &args.launch.append)
    });
    let launch = SnpLaunch {
        firmware: &firmware,
        kernel,
        vcpu_type: args.vcpu_type,
        guest_features: GuestFeatures(args.guest_features),
    };
    let digests = launch.measure().map_err(MeasureError::Launch)?;
    let signer = match &args.id_blocks {
        Some(directory) => Some(Signer {
            directory,
            key: signing_key(args.id_key.as_deref())?,
            policy: args.guest_policy,
        }),
        None => None,
    };
    let mut measured = Vec::new();
    for vcpus in &args.vcpus.0 {
        let digest = digests.of(*vcpus);
        let id_key_digest = match &signer {
            Some(signer) => Some(hex::encode(signer.write(*vcpus, digest)?)),
            None => None,
        };
        measured.push(Launch {
            vcpus: vcpus.get(),
            launch_digest: hex::encode(digest),
            id_key_digest,
        });
    }
    let result = Measured {
        vcpu_type: args.vcpu_type.to_string(),
        guest_features: format!("{:#x}", args.guest_features),
        kernel: kernel.map(|hashes| Hashes {
            kernel: hex::encode(hashes.kernel),
            initrd: hex::encode(hashes.initrd),
            command_line: hex::encode(hashes.command_line),
        }),
        digests: measured,
    };
    output.result(args.format.format, &result)?;
    if let Some(signer) = &signer {
        let count = args.vcpus.0.len();
        let directory = signer.directory.display();
        output.note(&format!("wrote {count} ID blocks to `{directory}`"));
    }
    Ok(())
}

fn signing_key(path: Option<&Path>) -> Result<EcdsaKeyPair, Failure> {
    let algorithm = &ECDSA_P384_SHA384_FIXED_SIGNING;
    let Some(path) = path else {
        return Ok(EcdsaKeyPair::generate(algorithm).map_err(MeasureError::Generate)?);
    };
    let bytes = zeroize::Zeroizing::new(workspace::read("ID key", path, "")?);
    let shown = path.display().to_string();
    let pem = pem::parse(&*bytes).map_err(|source| MeasureError::NotPem {
        path: shown.clone(),
        source,
    })?;
    let der = zeroize::Zeroizing::new(pem.into_contents());
    let key = EcdsaKeyPair::from_pkcs8(algorithm, &der);
    Ok(key.map_err(|source| MeasureError::Key {
        path: shown,
        source,
    })?)
}

/// Makes ID blocks.
struct Signer<'a> {
    directory: &'a Path,
    key: EcdsaKeyPair,
    policy: u64,
}

impl Signer<'_> {
    /// Writes the ID block for a digest and returns ID_KEY_DIGEST.
    fn write(
        &self,
        vcpus: VcpuCount,
        launch_digest: Sha384Digest,
    ) -> Result<Sha384Digest, Failure> {
        let block = IdBlock {
            launch_digest,
            family_id: FAMILY_ID,
            image_id: IMAGE_ID,
            guest_svn: GUEST_SVN,
            policy: self.policy,
        };
        let auth = IdAuth::sign(&block, &self.key, None, &SystemRandom::new())
            .map_err(MeasureError::Sign)?;
        let write = |name: &str, bytes: &[u8]| {
            let path = self.directory.join(format!("{vcpus}.{name}"));
            workspace::overwrite(&path, STANDARD.encode(bytes).as_bytes())
        };
        write("id-block", &block.to_bytes())?;
        write("id-auth", auth.as_bytes())?;
        Ok(auth.id_key_digest())
    }
}

impl Render for Measured {
    fn text(&self, out: &mut dyn Write, paint: Paint) -> io::Result<()> {
        writeln!(out, "vCPU type       {}", self.vcpu_type)?;
        writeln!(out, "guest features  {}", self.guest_features)?;
        if let Some(hashes) = &self.kernel {
            writeln!(out, "kernel          {}", hashes.kernel)?;
            writeln!(out, "initrd          {}", hashes.initrd)?;
            writeln!(out, "command line    {}", hashes.command_line)?;
        }
        writeln!(out, "\n{}", paint.strong("vCPUs  launch digest"))?;
        for launch in &self.digests {
            writeln!(out, "{:<5}  {}", launch.vcpus, launch.launch_digest)?;
        }
        if let Some(digest) = self
            .digests
            .iter()
            .find_map(|launch| launch.id_key_digest.as_ref())
        {
            writeln!(out, "\nID key digest   {digest}")?;
        }
        Ok(())
    }
}
