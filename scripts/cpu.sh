#!/bin/sh
# Runs a command with the settings of the C library's allocator under which JAX is fastest on a CPU
# (Linux with glibc; elsewhere they do nothing):
#
#     scripts/cpu.sh python main.py ...
#
# By default glibc gives large buffers back to the system after each step, which hands them out again
# page by page. Here they are kept, on huge pages; in one arena, since those of other threads map
# what is large whatever the settings say.
set -eu
tunables=glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184
tunables=$tunables:glibc.malloc.arena_max=1
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-$tunables}"
export JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}"
exec "$@"
