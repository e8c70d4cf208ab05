//! Breaks an object in one exact way: a program that only returns "ok", or a map whose look-ups miss.
//!
//! Knows ELF and the encoding of a few instructions. Does not know what a scenario is.

use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SymbolIndex, SymbolKind};
use std::collections::BTreeMap;

/// Bytes of an instruction.
const INSN: usize = 8;
/// `r0 = 0`.
const MOV_R0_0: [u8; INSN] = [0xb7, 0, 0, 0, 0, 0, 0, 0];
/// `exit`.
const EXIT: [u8; INSN] = [0x95, 0, 0, 0, 0, 0, 0, 0];
const JA: u8 = 0x05;
const LD_IMM64: u8 = 0x18;
const CALL: u8 = 0x85;
const MOV64_REG: u8 = 0xbf;

/// `bpf_map_lookup_elem`, and the register that holds its map.
const LOOKUP: (i32, u8) = (1, 1);
/// `bpf_tail_call`, and the register that holds its map.
const TAIL_CALL: (i32, u8) = (12, 2);

/// The object with the program's first instructions replaced by `return TC_ACT_OK`; `None` if it has no such program.
pub(crate) fn return_ok(object: &[u8], program: &str) -> Option<Vec<u8>> {
    let file = object::File::parse(object).expect("a committed object is an ELF file");
    let symbol = file.symbols().find(|s| s.name() == Ok(program) && s.kind() == SymbolKind::Text)?;
    let section = file.section_by_index(symbol.section_index()?).expect("a symbol's section exists");
    let (start, _) = section.file_range().expect("code stands in the file");
    let code = &section.data().expect("code stands in the file")[symbol.address() as usize..];
    let relocated: Vec<usize> = section
        .relocations()
        .filter_map(|(offset, _)| Some(offset.checked_sub(symbol.address())? as usize / INSN))
        .collect();
    // A relocation writes into its instruction, and a 64-bit load's second half is no instruction: neither may be
    // where the replacement goes. What is jumped over is never executed.
    let whole = |i: usize| !relocated.contains(&i) && code[i * INSN] != LD_IMM64 && code[i * INSN] != 0;
    assert!(whole(0), "{program}: its first instruction cannot be replaced");
    let to = (0..)
        .find(|i| (*i == 0 || *i > 1) && whole(*i) && whole(*i + 1))
        .expect("a program has two plain instructions");
    let mut out = object.to_vec();
    let mut put = |index: usize, insn: [u8; INSN]| {
        let at = (start + symbol.address()) as usize + index * INSN;
        out[at..at + INSN].copy_from_slice(&insn);
    };
    if to > 0 {
        let [low, high] = (to as u16 - 1).to_le_bytes();
        put(0, [JA, 0, low, high, 0, 0, 0, 0]);
    }
    put(to, MOV_R0_0);
    put(to + 1, EXIT);
    Some(out)
}

/// The object with every look-up in `map` (a tail call through it, for a program array) replaced by a miss, and how
/// many were replaced.
///
/// Where one call looks up in one map or another, as the protocol says, the load of `map` is made to load the other:
/// the key of one protocol is never in the map of the others.
pub(crate) fn miss(object: &[u8], map: &str) -> (Vec<u8>, usize) {
    let file = object::File::parse(object).expect("a committed object is an ELF file");
    let mut out = object.to_vec();
    let mut replaced = 0;
    for section in file.sections().filter(|s| s.kind() == object::SectionKind::Text) {
        let code = section.data().expect("code stands in the file");
        let (start, _) = section.file_range().unwrap_or((0, 0));
        let loads: BTreeMap<usize, (SymbolIndex, String)> = section
            .relocations()
            .filter_map(|(offset, r)| match r.target() {
                RelocationTarget::Symbol(i) => {
                    let name = file.symbol_by_index(i).ok()?.name().ok()?.to_owned();
                    Some((offset as usize / INSN, (i, name)))
                }
                _ => None,
            })
            .collect();
        for (i, insn) in code.chunks_exact(INSN).enumerate() {
            let imm = i32::from_le_bytes([insn[4], insn[5], insn[6], insn[7]]);
            if insn[0] != CALL || insn[1] >> 4 != 0 {
                continue;
            }
            let Some((_, register)) = [LOOKUP, TAIL_CALL].into_iter().find(|(f, _)| *f == imm) else {
                continue;
            };
            let origins: Vec<(usize, &(SymbolIndex, String))> =
                origins(code, i, register).into_iter().filter_map(|at| Some((at, loads.get(&at)?))).collect();
            let Some((at, _)) = origins.iter().find(|(_, (_, name))| name == map) else { continue };
            match origins.iter().find(|(_, (_, name))| name != map) {
                None => {
                    let place = start as usize + i * INSN;
                    out[place..place + INSN].copy_from_slice(&MOV_R0_0);
                }
                Some((_, (other, _))) => {
                    let name = section.name().expect("a section has a name");
                    retarget(&file, &mut out, name, (at * INSN) as u64, *other);
                }
            }
            replaced += 1;
        }
    }
    (out, replaced)
}

/// The loads that `register` may hold the value of before instruction `at`, by walking back over the straight line
/// before it; past a load that a branch jumps over.
fn origins(code: &[u8], at: usize, mut register: u8) -> Vec<usize> {
    let mut loads = Vec::new();
    for i in (0..at).rev() {
        let insn = &code[i * INSN..(i + 1) * INSN];
        let (dst, src) = (insn[1] & 15, insn[1] >> 4);
        match insn[0] {
            // The second half of a 64-bit load has opcode 0 and is no instruction.
            0 => continue,
            LD_IMM64 if dst == register => {
                loads.push(i);
                let jumps_over = i > 0 && {
                    let before = &code[(i - 1) * INSN..i * INSN];
                    // Classes 5 and 6 are jumps; the load is two instructions long.
                    matches!(before[0] & 7, 5 | 6) && before[2] == 2 && before[3] == 0
                };
                if !jumps_over {
                    break;
                }
            }
            MOV64_REG if dst == register => register = src,
            _ => {}
        }
    }
    loads
}

/// Makes the relocation at `offset` of section `name` one to another symbol.
fn retarget(file: &object::File<'_>, out: &mut [u8], name: &str, offset: u64, symbol: SymbolIndex) {
    /// `Elf64_Rel`: r_offset, r_info; the symbol is the upper half of r_info.
    const ENTRY: usize = 16;
    let relocations = file.section_by_name(&format!(".rel{name}")).expect("the section has relocations");
    let (start, _) = relocations.file_range().expect("relocations stand in the file");
    let entries = relocations.data().expect("relocations stand in the file");
    let index = entries
        .chunks_exact(ENTRY)
        .position(|e| e[..8] == offset.to_le_bytes())
        .expect("the load has a relocation");
    let at = start as usize + index * ENTRY + 12;
    out[at..at + 4].copy_from_slice(&(symbol.0 as u32).to_le_bytes());
}
