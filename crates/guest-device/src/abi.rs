//! The kernel's structures, field by field as the headers define them. All integers are the machine's own byte order.

/// Bytes of `struct snp_report_resp`: MSG_REPORT_RSP of AMD publication 56860, padded by the driver.
pub const SNP_RESPONSE_BYTES: usize = 4000;
/// Bytes of a TDREPORT (`TDX_REPORT_LEN`).
pub const TD_REPORT_BYTES: usize = 1024;
/// Bytes of REPORT_DATA and REPORTDATA.
pub(crate) const REPORT_DATA_BYTES: usize = 64;

/// `struct snp_report_req`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct SnpReportRequest {
    pub(crate) user_data: [u8; REPORT_DATA_BYTES],
    pub(crate) vmpl: u32,
    pub(crate) reserved: [u8; 28],
}

/// `struct snp_ext_report_req`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct SnpExtendedReportRequest {
    pub(crate) data: SnpReportRequest,
    pub(crate) certs_address: u64,
    pub(crate) certs_len: u32,
}

/// `struct snp_report_resp`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct SnpReportResponse {
    pub(crate) data: [u8; SNP_RESPONSE_BYTES],
}

/// `struct snp_guest_request_ioctl`, with its union as the two halves that it consists of on little-endian machines; SEV-SNP
/// exists on no other.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct SnpGuestRequest {
    pub(crate) msg_version: u8,
    pub(crate) req_data: u64,
    pub(crate) resp_data: u64,
    pub(crate) fw_error: u32,
    pub(crate) vmm_error: u32,
}

/// `struct tdx_report_req`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct TdxReportRequest {
    pub(crate) reportdata: [u8; REPORT_DATA_BYTES],
    pub(crate) tdreport: [u8; TD_REPORT_BYTES],
}

/// Fails to compile when a structure is not what the kernel takes. Machines whose `u64` is aligned to 4 bytes (32-bit x86) are no
/// guests of either TEE.
const _: () = {
    use std::mem::{align_of, offset_of, size_of};

    assert!(size_of::<SnpReportRequest>() == 96 && align_of::<SnpReportRequest>() == 4);
    assert!(offset_of!(SnpReportRequest, user_data) == 0);
    assert!(offset_of!(SnpReportRequest, vmpl) == 64);
    assert!(offset_of!(SnpReportRequest, reserved) == 68);

    assert!(
        size_of::<SnpExtendedReportRequest>() == 112 && align_of::<SnpExtendedReportRequest>() == 8
    );
    assert!(offset_of!(SnpExtendedReportRequest, data) == 0);
    assert!(offset_of!(SnpExtendedReportRequest, certs_address) == 96);
    assert!(offset_of!(SnpExtendedReportRequest, certs_len) == 104);

    assert!(size_of::<SnpReportResponse>() == 4000 && align_of::<SnpReportResponse>() == 1);

    assert!(size_of::<SnpGuestRequest>() == 32 && align_of::<SnpGuestRequest>() == 8);
    assert!(offset_of!(SnpGuestRequest, msg_version) == 0);
    assert!(offset_of!(SnpGuestRequest, req_data) == 8);
    assert!(offset_of!(SnpGuestRequest, resp_data) == 16);
    assert!(offset_of!(SnpGuestRequest, fw_error) == 24);
    assert!(offset_of!(SnpGuestRequest, vmm_error) == 28);

    assert!(size_of::<TdxReportRequest>() == 1088 && align_of::<TdxReportRequest>() == 1);
    assert!(offset_of!(TdxReportRequest, reportdata) == 0);
    assert!(offset_of!(TdxReportRequest, tdreport) == 64);
};
