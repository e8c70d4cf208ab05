//! Legalisation.
use crate::{Error, object::Linked};
pub(crate) struct Legal;
pub(crate) fn legalise(_: &str, _: &Linked, _: usize, _: &[Vec<u8>]) -> Result<Legal, Error> {
    todo!()
}
