//! Pages that are looked at before they are decoded.

use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};

/// Refuses a dictionary of more entries than its page has bytes: the decoder makes room for as many as the header says.
pub(super) struct CheckedPages(pub Box<dyn PageReader>);

impl Iterator for CheckedPages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Result<Page>> {
        self.get_next_page().transpose()
    }
}

impl PageReader for CheckedPages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let page = self.0.get_next_page()?;
        if let Some(Page::DictionaryPage { buf, num_values, .. }) = &page
            && usize::try_from(*num_values).map_or(true, |entries| entries > buf.len())
        {
            let (entries, bytes) = (num_values, buf.len());
            return Err(ParquetError::General(format!("a dictionary of {entries} entries in {bytes} bytes")));
        }
        Ok(page)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.0.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.0.skip_next_page()
    }
}
