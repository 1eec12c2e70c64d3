//! Facts of a report for the extensions of the certificate that its guest gets.

use crate::{Claim, ClaimValue, appraisal::SnpProduct};

use super::abi::{Report, SigningKey};

/// Claims under 1.3.9901.2.1; arcs 1 to 36 mean what they mean in certificates of the Go implementation, so that whoever
/// reads those can read these.
pub(super) fn claims(report: &Report, product: SnpProduct) -> Vec<Claim> {
    let integer = |arc: u32, value: u64| Claim {
        arc,
        value: ClaimValue::Integer(value),
    };
    let boolean = |arc: u32, value: bool| Claim {
        arc,
        value: ClaimValue::Boolean(value),
    };
    let bytes = |arc: u32, value: &[u8]| Claim {
        arc,
        value: ClaimValue::Bytes(value.to_vec()),
    };
    let tcb = |arcs: [u32; 4], version: super::TcbVersion| {
        let tcb = version.components(product);
        let values = [tcb.bootloader, tcb.snp, tcb.tee, tcb.microcode];
        arcs.into_iter()
            .zip(values)
            .map(move |(arc, value)| integer(arc, value.into()))
    };
    let policy = report.guest_policy();
    let platform = report.platform_info();
    let mut claims = vec![
        integer(1, report.version.into()),
        integer(2, report.guest_svn.into()),
        integer(3, policy.abi_major.into()),
        integer(4, policy.abi_minor.into()),
        boolean(5, policy.debug),
        boolean(6, policy.migrate_ma),
        boolean(7, policy.smt),
        boolean(8, policy.single_socket),
        bytes(9, &report.family_id),
        bytes(10, &report.image_id),
        integer(11, report.vmpl.into()),
    ];
    claims.extend(tcb([12, 13, 14, 15], report.current_tcb));
    claims.extend([
        boolean(16, platform.smt_enabled),
        boolean(17, platform.tsme_enabled),
        boolean(18, report.author_key_present()),
        boolean(19, report.chip_key_masked()),
        integer(
            20,
            match report.signing_key() {
                SigningKey::Vcek => 0,
                SigningKey::Vlek => 1,
                SigningKey::Other(encoding) => encoding.into(),
            },
        ),
        bytes(21, &report.report_data),
        bytes(22, &report.measurement),
        bytes(23, &report.host_data),
        bytes(24, &report.id_key_digest),
        bytes(25, &report.author_key_digest),
        bytes(26, &report.report_id),
        bytes(27, &report.report_id_ma),
    ]);
    claims.extend(tcb([28, 29, 30, 31], report.reported_tcb));
    claims.push(bytes(32, &report.chip_id));
    claims.extend(tcb([33, 34, 35, 36], report.committed_tcb));
    claims
}
