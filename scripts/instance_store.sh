#!/usr/bin/env bash
# Formats an EC2 machine's instance-store disk, once, and mounts it at /mnt/scratch: quick, and lost with the machine.
# Touches nothing anywhere else: only on EC2, only disks that EC2 calls instance store, only without any signature on them.
set -euo pipefail

[[ $(cat /sys/class/dmi/id/sys_vendor 2> /dev/null) == "Amazon EC2" ]] || exit 0
mountpoint -q /mnt/scratch && exit 0

lsblk --nodeps --noheadings --output PATH,MODEL | while read -r disk model; do
  [[ $model == "Amazon EC2 NVMe Instance Storage" ]] || continue
  # Whatever carries a file system, a partition table, a RAID or LVM label has an owner: leave it alone.
  signatures=$(sudo wipefs --no-act --noheadings "$disk")
  if [[ -n $signatures ]]; then
    echo "instance_store: $disk is not empty, left alone" >&2
    continue
  fi
  sudo mkfs.ext4 -q -L raysweep "$disk"
  sudo mkdir -p /mnt/scratch
  sudo mount "$disk" /mnt/scratch
  sudo chown "$(id -u):$(id -g)" /mnt/scratch
  break
done
