// SPDX-License-Identifier: GPL-2.0 OR MIT
/* As objects were for iproute2's loader: maps as structs in a section `maps`, without BTF; programs in a section
 * `ID/SLOT` stand in that slot of the map with that id; an inner map names its place in the outer one.
 *
 * r0: what the tail called program in slot mark gives, or 1 if there is none. */
#include "vm.h"

char _license[] SEC("license") = "Dual MIT/GPL";

struct bpf_elf_map {
	__u32 type, size_key, size_value, max_elem, flags, id, pinning, inner_id, inner_idx;
};

struct bpf_elf_map SEC("maps") calls = {
	.type = BPF_MAP_TYPE_PROG_ARRAY, .id = 2, .size_key = 4, .size_value = 4, .max_elem = 4,
};

struct bpf_elf_map SEC("maps") hits = {
	.type = BPF_MAP_TYPE_HASH, .size_key = 4, .size_value = 8, .max_elem = 16,
};

static noinline void hit(__u32 what)
{
	__u64 one = 1, *count = bpf_map_lookup_elem(&hits, &what);

	if (count)
		*count += 1;
	else
		bpf_map_update_elem(&hits, &what, &one, 0);
}

SEC("ingress")
int entry(struct __sk_buff *skb)
{
	hit(100);
	bpf_tail_call(skb, &calls, skb->mark);
	return 1;
}

SEC("2/0")
int first(struct __sk_buff *skb)
{
	hit(0);
	return 10;
}

SEC("0x2/3")
int third(struct __sk_buff *skb)
{
	hit(3);
	return 13;
}
