//! Little-endian fields of images that may be shorter than they claim.

pub(crate) fn slice(bytes: &[u8], offset: usize, length: usize) -> Option<&[u8]> {
    bytes.get(offset..offset.checked_add(length)?)
}

fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    slice(bytes, offset, N)?.try_into().ok()
}

pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    array(bytes, offset).map(u16::from_le_bytes)
}

pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    array(bytes, offset).map(u32::from_le_bytes)
}

pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    array(bytes, offset).map(u64::from_le_bytes)
}

pub(crate) fn guid_at(bytes: &[u8], offset: usize) -> Option<crate::Guid> {
    array(bytes, offset).map(crate::Guid)
}

/// Writes `field` over the bytes at `offset`; the caller has checked that it fits.
pub(crate) fn put(target: &mut [u8], offset: usize, field: &[u8]) {
    if let Some(place) = target.get_mut(offset..offset + field.len()) {
        place.copy_from_slice(field);
    } else {
        debug_assert!(false, "a field at {offset:#x} is outside its structure");
    }
}
