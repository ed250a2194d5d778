//! Capsule that was verified: its document, and the sections of its hosts.

use crate::container::{StoredSection, decode};
use crate::limits::{MAX_DOCUMENT_BYTES, MAX_SECTION_BYTES};
use crate::{CapsuleDocument, CapsuleError, HostSeries, ProcessTable, decode_processes, decode_series};

/// Capsule with valid checksums and a valid document.
pub struct Capsule<'a> {
    document: CapsuleDocument,
    sections: Vec<StoredSection<'a>>,
}

impl<'a> Capsule<'a> {
    /// Verifies a file and parses its document. Sections of hosts are decoded when they are read.
    ///
    /// # Errors
    /// Returns the reason for which the file is no valid capsule.
    pub fn parse(file: &'a [u8]) -> Result<Self, CapsuleError> {
        let mut sections = decode(file)?;
        let document = CapsuleDocument::parse(&sections.remove(0).content(MAX_DOCUMENT_BYTES)?)?;
        if sections.len() != 2 * document.hosts.len() {
            return Err(CapsuleError::Invalid("number of sections"));
        }
        Ok(Self { document, sections })
    }

    /// Document of the capsule.
    pub fn document(&self) -> &CapsuleDocument {
        &self.document
    }

    /// Decodes the series of the host at a position.
    ///
    /// # Errors
    /// Returns the reason for which the section is invalid.
    pub fn series(&self, index: usize) -> Result<HostSeries, CapsuleError> {
        let (host, content) = self.host_section(index, 0)?;
        decode_series(&content, host.rows, host.series.len())
    }

    /// Decodes the processes of the host at a position.
    ///
    /// # Errors
    /// Returns the reason for which the section is invalid.
    pub fn processes(&self, index: usize) -> Result<ProcessTable, CapsuleError> {
        let (host, content) = self.host_section(index, 1)?;
        decode_processes(&content, host.process_rows)
    }

    fn host_section(
        &self,
        index: usize,
        part: usize,
    ) -> Result<(&crate::CapsuleHost, Vec<u8>), CapsuleError> {
        let host = self.document.hosts.get(index).ok_or(CapsuleError::Invalid("host"))?;
        Ok((host, self.sections[2 * index + part].content(MAX_SECTION_BYTES)?))
    }

    /// Decodes all sections.
    ///
    /// # Errors
    /// Returns the reason for which a section is invalid.
    pub fn verify(&self) -> Result<(), CapsuleError> {
        for index in 0..self.document.hosts.len() {
            self.series(index)?;
            self.processes(index)?;
        }
        Ok(())
    }
}
