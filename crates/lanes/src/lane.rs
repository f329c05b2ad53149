//! One packet on its way through the registers.

use crate::{HEADER, Iv, OpenJob, PAYLOAD_AT, SealJob};

/// A packet with the places of its parts. It fits: the places are within it and in order.
#[derive(Default)]
pub(crate) struct Lane<'a> {
    packet: &'a mut [u8],
    verified: Option<&'a mut bool>,
    text_at: usize,
    icv_at: usize,
    suffix: [u8; 4],
    suffix_len: usize,
}

impl<'a> Lane<'a> {
    /// `job` fits.
    pub(crate) fn sealing(job: &'a mut SealJob<'_>, icv_len: usize) -> Self {
        let icv_at = job.packet.len() - icv_len;
        let text_at = match job.iv {
            Iv::Given => PAYLOAD_AT,
            Iv::Encrypted(number) => {
                // As one more block in front, chained from zero: what comes out of it is the IV of the rest.
                job.packet[HEADER..PAYLOAD_AT].copy_from_slice(&u128::from(number).to_be_bytes());
                HEADER
            }
        };
        Self { packet: job.packet, text_at, icv_at, ..Self::suffixed(job.esn_high) }
    }

    /// `job` fits.
    pub(crate) fn opening(job: &'a mut OpenJob<'_>, icv_len: usize) -> Self {
        let icv_at = job.packet.len() - icv_len;
        let verified = Some(&mut job.verified);
        Self { packet: job.packet, verified, text_at: PAYLOAD_AT, icv_at, ..Self::suffixed(job.esn_high) }
    }

    fn suffixed(esn_high: Option<u32>) -> Self {
        let suffix_len = if esn_high.is_some() { 4 } else { 0 };
        Self { suffix: esn_high.unwrap_or_default().to_be_bytes(), suffix_len, ..Self::default() }
    }

    pub(crate) const fn text_len(&self) -> usize {
        self.icv_at - self.text_at
    }

    /// What is encrypted: whole blocks.
    pub(crate) fn text(&self) -> &[u8] {
        &self.packet[self.text_at..self.icv_at]
    }

    pub(crate) fn text_mut(&mut self) -> &mut [u8] {
        &mut self.packet[self.text_at..self.icv_at]
    }

    /// What the first block is chained to.
    pub(crate) fn iv(&self) -> [u8; 16] {
        match self.packet.get(HEADER..self.text_at) {
            Some(iv) => iv.try_into().unwrap_or_default(),
            None => [0; 16],
        }
    }

    /// The IV and what is encrypted behind it.
    pub(crate) fn chained_mut(&mut self) -> &mut [u8] {
        &mut self.packet[HEADER..self.icv_at]
    }

    /// What is authenticated: a part of the packet, then bytes that are not sent.
    pub(crate) fn message(&self) -> (&[u8], &[u8]) {
        (&self.packet[..self.icv_at], &self.suffix[..self.suffix_len])
    }

    pub(crate) fn icv_mut(&mut self) -> &mut [u8] {
        &mut self.packet[self.icv_at..]
    }

    pub(crate) fn note_verified(&mut self) {
        if let Some(verified) = &mut self.verified {
            **verified = true;
        }
    }
}
