// SPDX-License-Identifier: GPL-2.0 OR MIT
/* iproute2's map in map: `outer` looks like the map whose id it names, and that map stands in its slot 1. */
#include "vm.h"

char _license[] SEC("license") = "Dual MIT/GPL";

struct bpf_elf_map {
	__u32 type, size_key, size_value, max_elem, flags, id, pinning, inner_id, inner_idx;
};

struct bpf_elf_map SEC("maps") inner = {
	.type = BPF_MAP_TYPE_ARRAY, .size_key = 4, .size_value = 4, .max_elem = 1, .id = 42, .inner_idx = 1,
};

struct bpf_elf_map SEC("maps") outer = {
	.type = BPF_MAP_TYPE_ARRAY_OF_MAPS, .size_key = 4, .size_value = 4, .max_elem = 2, .inner_id = 42,
};

SEC("classifier")
int nested(struct __sk_buff *skb)
{
	__u32 slot = skb->mark, zero = 0, *value;
	void *map = bpf_map_lookup_elem(&outer, &slot);

	if (!map)
		return 1;
	value = bpf_map_lookup_elem(map, &zero);
	return value ? *value : 2;
}
