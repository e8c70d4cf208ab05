//! Loading.
use crate::*;
pub(crate) fn load(_: &mut Kernel, _: &Object, _: &LoadSpec) -> Result<Loaded, Error> {
    todo!()
}
