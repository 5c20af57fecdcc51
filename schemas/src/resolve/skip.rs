//! Passing over what nobody reads.

use super::run::Work;
use crate::error::DecodeError;
use crate::shape::{Base, NodeId, Shape};
use crate::wire::Cursor;

/// Moves the cursor behind one value of node `id`.
pub(super) fn skip(
    shape: &Shape,
    id: NodeId,
    c: &mut Cursor<'_>,
    work: &mut Work,
) -> Result<(), DecodeError> {
    work.enter(c)?;
    match &shape.node(id).base {
        Base::Null => {}
        Base::Boolean => _ = c.boolean()?,
        Base::Int | Base::Long => _ = c.long()?,
        Base::Float => _ = c.float()?,
        Base::Double => _ = c.double()?,
        Base::Bytes | Base::String => _ = c.slice()?,
        Base::Fixed(_, size) => _ = c.take(*size)?,
        Base::Enum(_, symbols, _) => _ = c.index(symbols.len())?,
        Base::Array(items) => loop {
            let count = work.block(c)?;
            if count == 0 {
                break;
            }
            for _ in 0..count {
                let began = c.position();
                skip(shape, *items, c, work)?;
                work.count_item(began, c)?;
            }
        },
        Base::Map(values) => loop {
            let count = work.block(c)?;
            if count == 0 {
                break;
            }
            for _ in 0..count {
                c.slice()?;
                skip(shape, *values, c, work)?;
            }
        },
        Base::Union(branches) => {
            let index = c.index(branches.len())?;
            skip(shape, branches[index], c, work)?;
        }
        Base::Record(_, fields) => {
            for field in fields {
                skip(shape, field.node, c, work)?;
            }
        }
    }
    work.leave();
    Ok(())
}
