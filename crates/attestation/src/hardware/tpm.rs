//! The few TPM 2.0 commands that evidence takes (TCG TPM 2.0 library, part 3; numbers of sections from revision 1.59).

use std::{
    collections::BTreeMap,
    fmt::Debug,
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::Path,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use tpm2_protocol::{
    TpmError, TpmResult, TpmUnmarshal as _, TpmWriter,
    basic::{TpmHandle, TpmUint16},
    constant::TPM_MAX_COMMAND_SIZE,
    data::{
        Tpm2b, Tpm2bData, TpmAlgId, TpmCc, TpmRc, TpmRcBase, TpmSt, TpmaSession, TpmlPcrSelection,
        TpmsAuthCommand, TpmsPcrSelect, TpmsPcrSelection, TpmsSchemeHash, TpmtSigScheme,
        TpmtSignature, TpmuSigScheme, TpmuSignature,
    },
    frame::{
        TpmFrame, TpmHeader, TpmNvReadCommand, TpmNvReadPublicCommand, TpmNvReadPublicResponse,
        TpmNvReadResponse, TpmPcrReadCommand, TpmPcrReadResponse, TpmQuoteCommand, TpmResponse,
        TpmUnmarshalBody, tpm_marshal_command,
    },
};

/// TPM_RH_OWNER: the hierarchy whose authorisation reads an NV index with TPMA_NV_OWNERREAD.
const OWNER: TpmHandle = TpmHandle::new(0x4000_0001);
/// TPM_RS_PW: a session that is a password; ours is empty.
const PASSWORD_SESSION: TpmHandle = TpmHandle::new(0x4000_0009);
/// What every PC Client TPM can read from NV at once (part 2, TPM_PT_NV_BUFFER_MAX; the profile demands 512 or more).
const NV_CHUNK_BYTES: u16 = 512;
/// Pauses before a command that the TPM was too busy for is sent again: this one, then twice as long each time.
const RETRY_PAUSE: Duration = Duration::from_millis(5);
/// No pause is as long as this; all of them together take less than twice as long.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);
/// PCRs in one bank of a PC Client TPM.
const PCRS: u8 = 24;

/// A TPM 2.0: takes whole commands and gives whole responses.
pub trait Tpm: Debug + Send + Sync {
    /// Sends `command` and waits for the response, which is neither trusted nor looked at here.
    ///
    /// # Errors
    /// When the device is gone.
    fn transact(&self, command: &[u8]) -> io::Result<Vec<u8>>;
}

/// A TPM behind a character device of Linux, best `/dev/tpmrm0`, where the kernel keeps its users apart.
#[derive(Debug)]
pub struct TpmDevice(Mutex<File>);

impl TpmDevice {
    /// Opens the device at `path` for reading and writing.
    ///
    /// # Errors
    /// When it does not exist or belongs to somebody else.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Self(Mutex::new(file)))
    }
}

impl Tpm for TpmDevice {
    fn transact(&self, command: &[u8]) -> io::Result<Vec<u8>> {
        // Nothing is left half done in a file when its user panics: the next command discards an unread response.
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One command and one response each, whole: the driver wants it so.
        let written = file.write(command)?;
        if written != command.len() {
            return Err(io::Error::other(format!(
                "the TPM took {written} of {} bytes",
                command.len()
            )));
        }
        let mut response = vec![0; TPM_MAX_COMMAND_SIZE];
        let length = file.read(&mut response)?;
        response.truncate(length);
        Ok(response)
    }
}

/// The TPM did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TpmCommandError {
    /// No response.
    #[error("{command} got no response from the TPM")]
    Device {
        /// The command.
        command: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A response code other than success.
    #[error("{command} was refused by the TPM: {code} ({value:#x})")]
    Refused {
        /// The command.
        command: &'static str,
        /// The code's name.
        code: String,
        /// The code (part 2, 6.6).
        value: u32,
    },
    /// The command or its response is malformed.
    #[error(
        "{command}: expected a well-formed response of a TPM 2.0, found one that is not: {problem}"
    )]
    Malformed {
        /// The command.
        command: &'static str,
        /// What is wrong.
        problem: String,
    },
}

impl TpmCommandError {
    /// Whether the TPM says that there is no such NV index, object or PCR: TPM_RC_HANDLE.
    pub fn is_absent(&self) -> bool {
        /// TPM_RC_HANDLE without the number of the handle (part 2, 6.6.3: format-one codes).
        const HANDLE: u32 = 0x08B;
        const NUMBER: u32 = 0xF00;
        matches!(self, Self::Refused { value, .. } if value & !NUMBER == HANDLE)
    }

    /// Whether the TPM was only busy, and wants the same command again: TPM_RC_YIELDED, TPM_RC_TESTING, TPM_RC_RETRY.
    fn is_passing(&self) -> bool {
        let busy = [0x908, 0x90A, 0x922];
        matches!(self, Self::Refused { value, .. } if busy.contains(value))
    }
}

/// A quote as the TPM gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuoteResponse {
    /// TPMS_ATTEST, exact bytes.
    pub quoted: Vec<u8>,
    /// RSASSA signature over it.
    pub signature: Vec<u8>,
}

/// Parameters of the response to TPM2_Quote. The bytes of `quoted` are what was signed, so they are not taken apart.
struct RawQuote {
    quoted: Vec<u8>,
    signature: TpmtSignature,
}

impl TpmHeader for RawQuote {
    const CC: TpmCc = TpmCc::Quote;
    const HANDLES: usize = 0;
}

impl TpmUnmarshalBody for RawQuote {
    fn unmarshal_body(_: &[u8], parameters: &[u8]) -> TpmResult<Self> {
        let (quoted, rest) = Tpm2b::unmarshal(parameters)?;
        let (signature, rest) = TpmtSignature::unmarshal(rest)?;
        if !rest.is_empty() {
            let offset = parameters.len().saturating_sub(rest.len());
            let actual = rest.len();
            return Err(TpmError::TrailingData { offset, actual });
        }
        Ok(Self {
            quoted: quoted.to_vec(),
            signature,
        })
    }
}

/// The whole of the NV index `index`, read in chunks with the owner's (empty) authorisation: TPM2_NV_ReadPublic and
/// TPM2_NV_Read (31.6, 31.13).
///
/// # Errors
/// When there is no such index, or the owner may not read it.
pub fn nv_read(tpm: &dyn Tpm, index: u32) -> Result<Vec<u8>, TpmCommandError> {
    const READ: &str = "TPM2_NV_Read";
    let size = nv_size(tpm, index)?;
    let mut contents = Vec::with_capacity(size.into());
    let mut offset = 0_u16;
    while offset < size {
        let length = size.saturating_sub(offset).min(NV_CHUNK_BYTES);
        let command = TpmNvReadCommand {
            handles: [OWNER, TpmHandle::new(index)],
            size: TpmUint16::new(length),
            offset: TpmUint16::new(offset),
        };
        let response: TpmNvReadResponse = call(tpm, READ, &command, true)?;
        if response.data.len() != usize::from(length) {
            return Err(malformed(
                READ,
                format!(
                    "{length} bytes were asked for, {} came",
                    response.data.len()
                ),
            ));
        }
        contents.extend_from_slice(&response.data);
        offset = offset.saturating_add(length);
    }
    Ok(contents)
}

/// Size in bytes of the NV index `index`.
///
/// # Errors
/// When there is no such index.
pub fn nv_size(tpm: &dyn Tpm, index: u32) -> Result<u16, TpmCommandError> {
    let handles = [TpmHandle::new(index)];
    let command = TpmNvReadPublicCommand { handles };
    let response: TpmNvReadPublicResponse = call(tpm, "TPM2_NV_ReadPublic", &command, false)?;
    Ok(response.nv_public.inner.data_size.value())
}

/// Values of SHA-256 PCRs: TPM2_PCR_Read (22.4), as often as it takes, since a TPM gives at most eight at once.
///
/// # Errors
/// When the TPM has no such PCR in its SHA-256 bank.
pub fn pcr_read(tpm: &dyn Tpm, pcrs: &[u8]) -> Result<BTreeMap<u8, [u8; 32]>, TpmCommandError> {
    const READ: &str = "TPM2_PCR_Read";
    let mut values = BTreeMap::new();
    loop {
        let missing: Vec<u8> = pcrs
            .iter()
            .copied()
            .filter(|index| !values.contains_key(index))
            .collect();
        if missing.is_empty() {
            return Ok(values);
        }
        let pcr_selection_in = selection(&missing).map_err(|error| own(READ, &error))?;
        let command = TpmPcrReadCommand {
            handles: [],
            pcr_selection_in,
        };
        let response: TpmPcrReadResponse = call(tpm, READ, &command, false)?;
        let given = selected(&response.pcr_selection_out);
        if given.is_empty() || given.len() != response.pcr_values.len() {
            return Err(malformed(
                READ,
                format!(
                    "SHA-256 PCRs {missing:?} were asked for, {given:?} with {} values came",
                    response.pcr_values.len()
                ),
            ));
        }
        for (index, digest) in given.into_iter().zip(response.pcr_values.iter()) {
            let value = <[u8; 32]>::try_from(&**digest)
                .map_err(|_| malformed(READ, format!("a PCR of {} bytes", digest.len())))?;
            if !missing.contains(&index) {
                return Err(malformed(READ, format!("PCR {index} was not asked for")));
            }
            values.insert(index, value);
        }
    }
}

/// A quote over SHA-256 PCRs by the RSA key at `key`, whose authorisation is empty: TPM2_Quote (18.4) with RSASSA and SHA-256.
///
/// # Errors
/// When there is no such key, or it cannot sign so.
pub fn quote(
    tpm: &dyn Tpm,
    key: u32,
    qualifying_data: &[u8],
    pcrs: &[u8],
) -> Result<QuoteResponse, TpmCommandError> {
    const QUOTE: &str = "TPM2_Quote";
    let command = || -> TpmResult<TpmQuoteCommand> {
        Ok(TpmQuoteCommand {
            handles: [TpmHandle::new(key)],
            qualifying_data: Tpm2bData::try_from(qualifying_data)?,
            in_scheme: TpmtSigScheme {
                scheme: TpmAlgId::Rsassa,
                details: TpmuSigScheme::Hash(TpmsSchemeHash {
                    hash_alg: TpmAlgId::Sha256,
                }),
            },
            pcr_select: selection(pcrs)?,
        })
    };
    let command = command().map_err(|error| own(QUOTE, &error))?;
    let response: RawQuote = call(tpm, QUOTE, &command, true)?;
    match response.signature.signature {
        TpmuSignature::Rsassa(signature) if signature.hash == TpmAlgId::Sha256 => {
            Ok(QuoteResponse {
                quoted: response.quoted,
                signature: signature.sig.to_vec(),
            })
        }
        _ => Err(malformed(
            QUOTE,
            "the signature is not RSASSA with SHA-256".to_owned(),
        )),
    }
}

/// One selection of SHA-256 PCRs.
fn selection(pcrs: &[u8]) -> TpmResult<TpmlPcrSelection> {
    let bitmap = pcrs
        .iter()
        .filter(|index| **index < PCRS)
        .fold(0_u32, |bitmap, index| bitmap | 1 << index);
    let [low, middle, high, _] = bitmap.to_le_bytes();
    let mut list = TpmlPcrSelection::new();
    list.try_push(TpmsPcrSelection {
        hash: TpmAlgId::Sha256,
        pcr_select: TpmsPcrSelect::try_from([low, middle, high].as_slice())?,
    })?;
    Ok(list)
}

/// Indices of the SHA-256 PCRs in `list`, ascending.
fn selected(list: &TpmlPcrSelection) -> Vec<u8> {
    let selections = list.iter();
    let bitmaps = selections.filter(|selection| selection.hash == TpmAlgId::Sha256);
    let bits = bitmaps.flat_map(|selection| {
        let bytes = selection.pcr_select.to_vec();
        let bits = bytes
            .into_iter()
            .flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1));
        (0..=u8::MAX).zip(bits).collect::<Vec<_>>()
    });
    bits.filter(|(_, set)| *set)
        .map(|(index, _)| index)
        .collect()
}

/// Sends `command`, with an empty password for its first handle when it is `authorised`, and reads the response to it.
fn call<R: TpmUnmarshalBody>(
    tpm: &dyn Tpm,
    name: &'static str,
    command: &impl TpmFrame,
    authorised: bool,
) -> Result<R, TpmCommandError> {
    let sessions = [TpmsAuthCommand {
        session_handle: PASSWORD_SESSION,
        session_attributes: TpmaSession::empty(),
        ..TpmsAuthCommand::default()
    }];
    let (tag, sessions) = match authorised {
        true => (TpmSt::Sessions, sessions.as_slice()),
        false => (TpmSt::NoSessions, [].as_slice()),
    };
    let mut buffer = [0; TPM_MAX_COMMAND_SIZE];
    let mut writer = TpmWriter::new(&mut buffer);
    tpm_marshal_command(command, tag, sessions, &mut writer).map_err(|error| own(name, &error))?;
    let mut pause = RETRY_PAUSE;
    loop {
        let bytes = tpm
            .transact(writer.as_bytes())
            .map_err(|source| TpmCommandError::Device {
                command: name,
                source,
            })?;
        match read_response(name, &bytes, tag) {
            Err(error) if error.is_passing() && pause < RETRY_PAUSE_MAX => thread::sleep(pause),
            outcome => return outcome,
        }
        pause = pause.saturating_mul(2);
    }
}

/// Reads the response to a command that was sent with `tag`.
fn read_response<R: TpmUnmarshalBody>(
    name: &'static str,
    bytes: &[u8],
    tag: TpmSt,
) -> Result<R, TpmCommandError> {
    let response = TpmResponse::cast(bytes).map_err(|error| own(name, &error))?;
    match response.rc() {
        Ok(TpmRc::Fmt0(TpmRcBase::Success)) => {}
        Ok(code) => {
            return Err(TpmCommandError::Refused {
                command: name,
                code: code.to_string(),
                value: code.value(),
            });
        }
        Err(error) => return Err(own(name, &error)),
    }
    if response.tag().ok() != Some(tag) {
        return Err(malformed(
            name,
            "its tag is not that of the command".to_owned(),
        ));
    }
    response.unmarshal().map_err(|error| own(name, &error))
}

fn own(command: &'static str, error: &TpmError) -> TpmCommandError {
    malformed(command, error.to_string())
}

fn malformed(command: &'static str, problem: String) -> TpmCommandError {
    TpmCommandError::Malformed { command, problem }
}

/// For fuzzing: reads `bytes` as the response to every command that is used here.
#[doc(hidden)]
pub fn read_any_response(bytes: &[u8]) {
    #[derive(Debug)]
    struct Canned<'a>(&'a [u8]);
    impl Tpm for Canned<'_> {
        fn transact(&self, _: &[u8]) -> io::Result<Vec<u8>> {
            Ok(self.0.to_vec())
        }
    }
    let tpm = Canned(bytes);
    let _ = nv_size(&tpm, 1);
    let _ = read_response::<TpmNvReadResponse>("TPM2_NV_Read", bytes, TpmSt::Sessions);
    let _ = pcr_read(&tpm, &[0, 4, 8]);
    let _ = quote(&tpm, 1, &[], &[0, 4, 8]);
}
