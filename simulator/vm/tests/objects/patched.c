// SPDX-License-Identifier: GPL-2.0 OR MIT
/* A TC program in the manner of those whose loader patches numbers into the code: nobody defines the symbols, and the
 * 16-byte load of a symbol's address becomes a load of the number that the loader has for its name. */
#include "vm.h"

char _license[] SEC("license") = "Dual MIT/GPL";

#define number_of(symbol) ({ __u64 _number; asm volatile("%0 = " #symbol " ll" : "=r"(_number)); _number; })

asm(".weak OPTIONAL");

const volatile __u32 limit = 3;

/* r0: ENDPOINT_ID + OPTIONAL + limit; skb->mark becomes the upper half of SEED. */
SEC("tc")
int patched(struct __sk_buff *skb)
{
	skb->mark = number_of(SEED) >> 32;
	return number_of(ENDPOINT_ID) + number_of(OPTIONAL) + limit;
}

/* Writes to a constant, which a kernel refuses. */
SEC("tc")
int spoils(struct __sk_buff *skb)
{
	*(volatile __u32 *)&limit = skb->mark;
	return 0;
}

struct guarded {
	char source[16];
	struct bpf_spin_lock lock;
	__u32 hits;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct guarded);
} guarded_map SEC(".maps");

static const char format[] = "%pI4";

/* Counts under a lock, and writes down where the packet came from. Helpers fill what nobody has written before. */
SEC("tc")
int guards(struct __sk_buff *skb)
{
	struct guarded *guarded;
	__u32 zero = 0;
	char text[16];
	__be32 source;
	__u64 data[1] = { (__u64)&source };

	guarded = bpf_map_lookup_elem(&guarded_map, &zero);
	if (!guarded || bpf_skb_load_bytes_relative(skb, 12, &source, sizeof(source), 1))
		return 2;
	bpf_snprintf(text, sizeof(text), format, data, sizeof(data));
	bpf_spin_lock(&guarded->lock);
	guarded->hits++;
	bpf_spin_unlock(&guarded->lock);
	__builtin_memcpy(guarded->source, text, sizeof(text));
	return 0;
}
