//! The maps, as BTF definitions made from `skep_abi::map`.
//!
//! Knows how a map is asked. Does not know what its values mean.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated as helper;
use core::ffi::c_void;
use skep_abi::Be32;
use skep_abi::map::{
    self, CtEntry, CtTuple4, EndpointInfo, EndpointKey, IpcacheKey, MetricsKey, MetricsValue, PolicyEntry,
    PolicyKey, RemoteEndpointInfo,
};

use crate::skb::Skb;

/// A map's definition: loaders read its type from BTF, and its address stands for the map.
#[repr(C)]
pub struct Map<K, V, const KIND: usize, const MAX_ENTRIES: usize, const FLAGS: usize> {
    r#type: *const [i32; KIND],
    key: *const K,
    value: *const V,
    max_entries: *const [i32; MAX_ENTRIES],
    map_flags: *const [i32; FLAGS],
}

// SAFETY: nobody reads the fields; the kernel synchronises access to the map.
unsafe impl<K, V, const KIND: usize, const MAX_ENTRIES: usize, const FLAGS: usize> Sync
    for Map<K, V, KIND, MAX_ENTRIES, FLAGS>
{
}

impl<K, V, const KIND: usize, const MAX_ENTRIES: usize, const FLAGS: usize>
    Map<K, V, KIND, MAX_ENTRIES, FLAGS>
{
    /// The definition of a map of the contract.
    pub const fn new(spec: &map::MapSpec) -> Self {
        assert!(size_of::<K>() == spec.key_size as usize && size_of::<V>() == spec.value_size as usize);
        assert!(KIND == spec.kind as usize);
        Self {
            r#type: core::ptr::null(),
            key: core::ptr::null(),
            value: core::ptr::null(),
            max_entries: core::ptr::null(),
            map_flags: core::ptr::null(),
        }
    }

    #[inline(always)]
    fn as_ptr(&self) -> *mut c_void {
        core::ptr::from_ref(self).cast_mut().cast()
    }

    /// Where the value of `key` stands, or null.
    #[inline(always)]
    pub fn find(&self, key: &K) -> *mut V {
        // SAFETY: the definition's key type is the map's.
        unsafe {
            helper::bpf_map_lookup_elem(self.as_ptr(), core::ptr::from_ref(key).cast_mut().cast()).cast()
        }
    }

    /// Sets the value of `key`; whether the kernel did.
    #[inline(always)]
    pub fn set(&self, key: &K, value: &V) -> bool {
        // SAFETY: the definition's key and value types are the map's.
        let failed = unsafe {
            helper::bpf_map_update_elem(
                self.as_ptr(),
                core::ptr::from_ref(key).cast_mut().cast(),
                core::ptr::from_ref(value).cast_mut().cast(),
                0,
            )
        };
        failed == 0
    }

    /// Goes on in the program of a slot; returns if there is none.
    #[inline(always)]
    pub fn tail_call(&self, skb: Skb, slot: u32) {
        // SAFETY: the helper is verified to get a program array.
        unsafe { helper::bpf_tail_call(skb.as_ptr(), self.as_ptr(), slot) };
    }

    /// Sends an event of this CPU, followed by the first `captured` bytes of the packet.
    #[inline(always)]
    pub fn output<T>(&self, skb: Skb, event: &T, captured: u32) {
        // BPF_F_CURRENT_CPU, and the number of bytes in the upper half (BPF_F_CTXLEN_MASK).
        let flags = 0xffff_ffff | (captured as u64) << 32;
        // SAFETY: the helper reads as many bytes as `T` has; events have no padding.
        unsafe {
            helper::bpf_perf_event_output(
                skb.as_ptr(),
                self.as_ptr(),
                flags,
                core::ptr::from_ref(event).cast_mut().cast(),
                size_of::<T>() as u64,
            )
        };
    }
}

macro_rules! maps {
    ($($(#[doc = $doc:literal])+ $symbol:literal $name:ident: $key:ty => $value:ty;)*) => {
        /// The types of the definitions below.
        #[expect(non_camel_case_types, reason = "each is named as its map is")]
        pub mod types {
            use super::*;
            $(
                $(#[doc = $doc])+
                pub type $name = Map<
                    $key,
                    $value,
                    { map::$name.kind as usize },
                    { map::$name.max_entries as usize },
                    { map::$name.flags as usize },
                >;
            )*
        }

        unsafe extern "Rust" {
            $(
                $(#[doc = $doc])+
                #[link_name = $symbol]
                pub safe static $name: types::$name;
            )*
        }
    };
}

maps! {
    /// Local endpoints by address.
    "skep_lxc" LXC: EndpointKey => EndpointInfo;
    /// Identity and node by address.
    "skep_ipcache" IPCACHE: IpcacheKey => RemoteEndpointInfo;
    /// What the endpoint may receive and send.
    "skep_policy_v2" POLICY: PolicyKey => PolicyEntry;
    /// TCP connections.
    "skep_ct4_global" CT4_GLOBAL: CtTuple4 => CtEntry;
    /// All other connections.
    "skep_ct_any4_global" CT_ANY4_GLOBAL: CtTuple4 => CtEntry;
    /// Counters by reason and direction.
    "skep_metrics" METRICS: MetricsKey => MetricsValue;
    /// The events.
    "skep_events" EVENTS: u32 => u32;
    /// The tail calls of this load.
    "skep_calls" CALLS: u32 => u32;
    /// handle_policy of every local endpoint.
    "skep_call_policy" CALL_POLICY: u32 => u32;
}

/// Defines the maps of an object: those that its programs ask, and no others.
#[macro_export]
macro_rules! define_maps {
    ($($symbol:literal $name:ident,)*) => {
        const _: () = {$(
            #[unsafe(link_section = ".maps")]
            #[unsafe(export_name = $symbol)]
            static $name: $crate::maps::types::$name = $crate::maps::Map::new(&skep_abi::map::$name);
        )*};
    };
}

/// The local endpoint, or the address of this node, that `address` is.
#[inline(always)]
pub fn endpoint(address: Be32) -> Option<EndpointInfo> {
    let p = LXC.find(&EndpointKey::ipv4(address));
    // SAFETY: not null, so a whole value, read once.
    if p.is_null() { None } else { Some(unsafe { p.read() }) }
}

/// Who an address is, and where.
#[inline(always)]
pub fn remote(address: Be32) -> Option<RemoteEndpointInfo> {
    let p = IPCACHE.find(&IpcacheKey::ipv4(address, 32));
    // SAFETY: not null, so a whole value, read once.
    if p.is_null() { None } else { Some(unsafe { p.read() }) }
}

/// Adds to a counter that other CPUs add to as well.
///
/// # Safety
/// `counter` is in a map's value.
#[inline(always)]
pub unsafe fn add(counter: *mut u64, by: u64) {
    // SAFETY: the caller's.
    unsafe {
        core::intrinsics::atomic_xadd::<u64, u64, { core::intrinsics::AtomicOrdering::Relaxed }>(counter, by)
    };
}
