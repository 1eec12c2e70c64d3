//! Platforms, and the runtime classes that stand for them.

pub use contrast_platform::Platform;
use serde_json::{Value, json};

use super::{ReferenceValuesChoice, inject::containers};

/// Any platform; what `--reference-values` names first takes its place.
const GENERIC: &str = "contrast-cc";
const GENERIC_INSECURE: &str = "contrast-insecure";
/// Resources of GPUs.
const GPU_VENDOR: &str = "nvidia.com/";

/// Whether pods of this runtime class are confidential, or pretend to be.
pub(crate) fn is_confidential(class: &str) -> bool {
    class.starts_with(GENERIC) || class.starts_with(GENERIC_INSECURE)
}

impl ReferenceValuesChoice {
    pub(super) fn platform(&self) -> Platform {
        match self {
            Self::Metal(platform) => *platform,
            Self::Insecure { .. } => Platform::SoftwareTee,
        }
    }
}

/// What becomes of a pod's runtime class.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// `None` when it stays generic, because no platform was named.
    pub(super) platform: Option<Platform>,
    /// The class to write, if it is another one.
    pub(super) class: Option<&'static str>,
}

/// Decides for a pod with the runtime class `class`; the error says what to write.
pub(super) fn choose(
    class: &str,
    spec: &Value,
    default: Option<&ReferenceValuesChoice>,
) -> Result<Choice, String> {
    let generic = class == GENERIC || class == GENERIC_INSECURE;
    let named = match generic {
        true => default.map(ReferenceValuesChoice::platform),
        false => Some(of_class(class)?),
    };
    let Some(named) = named else {
        return Ok(Choice {
            platform: None,
            class: None,
        });
    };
    if class == GENERIC_INSECURE && named != Platform::SoftwareTee {
        return Err(format!(
            "`runtimeClassName: {GENERIC_INSECURE}` is for the software TEE, but `--reference-values` names {}; write `{GENERIC}`",
            named.display()
        ));
    }
    let platform = match has_gpus(spec) {
        true => named.with_gpus(),
        false => named,
    };
    if platform != named && class != named.class() && !generic {
        return Err(format!(
            "the pod has GPUs, so its runtime class must be `{}` with the version of that runtime, not `{class}`",
            platform.class()
        ));
    }
    let stays = !generic && platform == named;
    Ok(Choice {
        platform: Some(platform),
        class: (!stays).then(|| platform.class()),
    })
}

/// The platform of a class; the error says what to write.
fn of_class(class: &str) -> Result<Platform, String> {
    Platform::of_class(class).map_err(|_| {
        let known = Platform::ALL.map(Platform::class);
        format!(
            "`runtimeClassName: {class}` is of no known platform; write `{GENERIC}`, or one of {}",
            known.join(", ")
        )
    })
}

fn has_gpus(spec: &Value) -> bool {
    containers(spec).any(|(_, _, container)| {
        let limits = container["resources"]["limits"].as_object();
        let some = |(name, amount): (&String, &Value)| {
            name.starts_with(GPU_VENDOR) && *amount != json!(0) && *amount != json!("0")
        };
        limits.is_some_and(|limits| limits.iter().any(some))
    })
}

#[cfg(test)]
mod tests {
    use contrast_attestation::Tee;

    use super::*;

    const SNP: ReferenceValuesChoice = ReferenceValuesChoice::Metal(Platform::MetalQemuSnp);

    fn chosen(
        class: &str,
        gpus: bool,
        default: Option<&ReferenceValuesChoice>,
    ) -> Result<Choice, String> {
        let limits = if gpus {
            json!({"nvidia.com/pgpu": "1"})
        } else {
            json!({})
        };
        choose(
            class,
            &json!({"containers": [{"resources": {"limits": limits}}]}),
            default,
        )
    }

    #[test]
    fn generic_class_becomes_that_of_the_platform() {
        let insecure = ReferenceValuesChoice::Insecure {
            directory: "tee".into(),
            tee: Tee::Snp,
        };
        for (class, gpus, default, platform, becomes) in [
            (
                "contrast-cc",
                false,
                Some(&SNP),
                Some(Platform::MetalQemuSnp),
                Some("contrast-cc-metal-qemu-snp"),
            ),
            (
                "contrast-cc",
                true,
                Some(&SNP),
                Some(Platform::MetalQemuSnpGpu),
                Some("contrast-cc-metal-qemu-snp-gpu"),
            ),
            ("contrast-cc", true, None, None, None),
            (
                "contrast-cc-metal-qemu-tdx",
                false,
                Some(&SNP),
                Some(Platform::MetalQemuTdx),
                None,
            ),
            (
                "contrast-cc-metal-qemu-tdx-0a1b2c3d",
                false,
                None,
                Some(Platform::MetalQemuTdx),
                None,
            ),
            (
                "contrast-cc-metal-qemu-tdx",
                true,
                None,
                Some(Platform::MetalQemuTdxGpu),
                Some("contrast-cc-metal-qemu-tdx-gpu"),
            ),
            (
                "contrast-cc-metal-qemu-tdx-gpu-0a1b2c3d",
                true,
                None,
                Some(Platform::MetalQemuTdxGpu),
                None,
            ),
            (
                "contrast-insecure",
                false,
                Some(&insecure),
                Some(Platform::SoftwareTee),
                Some("contrast-insecure-software-tee"),
            ),
            (
                "contrast-cc",
                true,
                Some(&insecure),
                Some(Platform::SoftwareTee),
                Some("contrast-insecure-software-tee"),
            ),
        ] {
            assert_eq!(
                chosen(class, gpus, default),
                Ok(Choice {
                    platform,
                    class: becomes
                }),
                "{class}"
            );
        }
    }

    #[test]
    fn classes_that_cannot_be_meant_are_refused() {
        for (class, gpus, expected) in [
            ("contrast-cc-aks-clh-snp", false, "is of no known platform"),
            ("contrast-ccc", false, "is of no known platform"),
            (
                "contrast-cc-metal-qemu-snp-xyz",
                false,
                "is of no known platform",
            ),
            ("contrast-insecure", false, "is for the software TEE"),
            (
                "contrast-cc-metal-qemu-snp-0a1b2c3d",
                true,
                "must be `contrast-cc-metal-qemu-snp-gpu`",
            ),
        ] {
            let reason = chosen(class, gpus, Some(&SNP)).expect_err(class);
            assert!(reason.contains(expected), "{reason}");
        }
    }
}
