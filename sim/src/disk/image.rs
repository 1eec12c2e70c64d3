//! A file as pages that copies share.

use std::{collections::BTreeMap, io, sync::Arc};

use crate::dice::Dice;

/// Bytes of a page; also what a disk writes at once, or tears.
pub(super) const PAGE_BYTES: usize = 4096;
/// A torn page is cut at a multiple of this.
const SECTOR_BYTES: usize = 512;

type Page = [u8; PAGE_BYTES];

/// The content of a file. Copies are cheap: they share pages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    length: u64,
    /// Pages that are not here are zero.
    pages: BTreeMap<u64, Arc<Page>>,
}

/// What a power loss makes of a page that was written since the last sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// As it was at the last sync.
    Old,
    /// As it became by the write with this number since the last sync, counted from 0; the last one when there are fewer.
    New(usize),
    /// That write, up to this sector of eight, and as it was after it.
    Torn(usize, usize),
}

impl Image {
    /// Length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.check(offset, out.len())?;
        visit(offset, out.len(), |page, within, place| {
            match self.pages.get(&page) {
                Some(bytes) => out[place].copy_from_slice(&bytes[within]),
                None => out[place].fill(0),
            }
        });
        Ok(())
    }

    /// Writes, and returns the pages that changed.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<Vec<u64>> {
        self.check(offset, data.len())?;
        let mut changed = Vec::new();
        visit(offset, data.len(), |page, within, place| {
            Arc::make_mut(self.page_mut(page))[within].copy_from_slice(&data[place]);
            changed.push(page);
        });
        Ok(changed)
    }

    pub(super) fn set_length(&mut self, length: u64) {
        if length < self.length {
            self.pages
                .retain(|page, _| page * (PAGE_BYTES as u64) < length);
            let kept = (length % PAGE_BYTES as u64) as usize;
            if let Some(last) = self.pages.get_mut(&(length / PAGE_BYTES as u64)) {
                Arc::make_mut(last)[kept..].fill(0);
            }
        }
        self.length = length;
    }

    /// Flips a bit of a byte that is not zero, in one of the pages that were ever written.
    pub(super) fn damage(&mut self, dice: &Dice) {
        let page = dice.index(self.pages.len());
        let start = dice.index(PAGE_BYTES);
        let bit = dice.within(0..8);
        if let Some(page) = self.pages.values_mut().nth(page) {
            let (before, after) = Arc::make_mut(page).split_at_mut(start);
            let mut bytes = after.iter_mut().chain(before);
            if let Some(byte) = bytes.find(|byte| **byte != 0) {
                *byte ^= 1 << bit;
            }
        }
    }

    pub(super) fn page(&self, page: u64) -> Option<Arc<Page>> {
        self.pages.get(&page).cloned()
    }

    fn page_mut(&mut self, page: u64) -> &mut Arc<Page> {
        self.pages
            .entry(page)
            .or_insert_with(|| Arc::new([0; PAGE_BYTES]))
    }

    fn check(&self, offset: u64, length: usize) -> io::Result<()> {
        let end = offset.checked_add(length as u64);
        match end.is_some_and(|end| end <= self.length) {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn visit(
    offset: u64,
    length: usize,
    mut each: impl FnMut(u64, std::ops::Range<usize>, std::ops::Range<usize>),
) {
    let mut done = 0;
    while done < length {
        let at = offset + done as u64;
        let start = (at % PAGE_BYTES as u64) as usize;
        let count = (length - done).min(PAGE_BYTES - start);
        each(
            at / PAGE_BYTES as u64,
            start..start + count,
            done..done + count,
        );
        done += count;
    }
}

/// A file: what is on the disk for certain, and what was written since.
#[derive(Debug, Clone, Default)]
pub(super) struct File {
    pub(super) synced: Image,
    pub(super) current: Image,
    /// Versions of each page since the last sync, oldest first.
    unsynced: BTreeMap<u64, Vec<Arc<Page>>>,
}

impl File {
    pub(super) fn holding(image: Image) -> Self {
        Self {
            synced: image.clone(),
            current: image,
            unsynced: BTreeMap::new(),
        }
    }

    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        for page in self.current.write(offset, data)? {
            let version = self.current.page(page);
            self.unsynced.entry(page).or_default().extend(version);
        }
        Ok(())
    }

    pub(super) fn sync(&mut self) {
        self.unsynced.clear();
        self.synced = self.current.clone();
    }

    /// Loses power: `fate` decides for each page, by its number.
    ///
    /// Changes of length are kept: what is written beyond the end of a file extends it. Pages that a shorter length cut off
    /// come back as zeros.
    pub(super) fn lose_power(&mut self, mut fate: impl FnMut(u64) -> Fate) {
        let mut image = self.synced.clone();
        image.set_length(self.synced.length.max(self.current.length));
        for (number, versions) in &self.unsynced {
            let version = |at: usize| versions.get(at).or_else(|| versions.last());
            match fate(*number) {
                Fate::Old => {}
                Fate::New(at) => {
                    if let Some(new) = version(at) {
                        image.pages.insert(*number, Arc::clone(new));
                    }
                }
                Fate::Torn(at, sectors) => {
                    if let Some(new) = version(at) {
                        let end = (sectors * SECTOR_BYTES).min(PAGE_BYTES);
                        Arc::make_mut(image.page_mut(*number))[..end].copy_from_slice(&new[..end]);
                    }
                }
            }
        }
        *self = Self::holding(image);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(length: u64, byte: u8) -> Image {
        let mut image = Image::default();
        image.set_length(length);
        image.write(0, &vec![byte; length as usize]).expect("fits");
        image
    }

    fn byte(image: &Image, offset: u64) -> u8 {
        let mut out = [0];
        image.read(offset, &mut out).expect("within");
        out[0]
    }

    #[test]
    fn reads_give_what_was_written_across_pages_and_zeros_elsewhere() {
        let mut file = Image::default();
        file.set_length(3 * 4096);
        file.write(4090, &[7; 10]).expect("fits");
        assert_eq!([byte(&file, 4089), byte(&file, 4090)], [0, 7]);
        assert_eq!([byte(&file, 4099), byte(&file, 4100)], [7, 0]);
        file.write(3 * 4096 - 1, &[1, 2])
            .expect_err("beyond the end");
        file.read(3 * 4096, &mut [0]).expect_err("beyond the end");
    }

    #[test]
    fn what_a_shorter_length_cut_off_is_zero_when_it_grows_again() {
        let mut file = image(2 * 4096, 9);
        file.set_length(100);
        file.set_length(2 * 4096);
        assert_eq!(
            [byte(&file, 99), byte(&file, 100), byte(&file, 5000)],
            [9, 0, 0]
        );
    }

    #[test]
    fn power_loss_keeps_what_was_synced_and_leaves_the_rest_to_fate() {
        let mut file = File::holding(image(3 * 4096, 1));
        file.write(0, &[2; 3 * 4096]).expect("fits");
        file.write(0, &[3; 4096]).expect("fits");
        let crash = |fates: [Fate; 3]| {
            let mut file = file.clone();
            file.lose_power(|page| fates[page as usize]);
            assert_eq!(file.synced, file.current);
            file.current
        };
        let image = crash([Fate::Old, Fate::New(0), Fate::Torn(0, 1)]);
        assert_eq!([byte(&image, 0), byte(&image, 4096)], [1, 2]);
        assert_eq!([byte(&image, 8192 + 511), byte(&image, 8192 + 512)], [2, 1]);
        let image = crash([Fate::New(0), Fate::Old, Fate::Old]);
        assert_eq!(byte(&image, 0), 2, "the first of two writes");
        assert_eq!(byte(&crash([Fate::New(5), Fate::Old, Fate::Old]), 0), 3);
        let mut synced = file.clone();
        synced.sync();
        synced.lose_power(|_| Fate::Old);
        assert_eq!(byte(&synced.current, 0), 3);
    }
}
