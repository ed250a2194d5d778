# Prints a capture of this host for each line "capture" on standard input, until the end of input.
# Other lines are ignored, so that the script can be the forced command of an SSH key.
# Requires POSIX sh or busybox; writes no file. Root is optional: without root, the I/O counters of
# other users' processes are missing. Commands read from /dev/null because this script itself may be
# read from standard input.
LC_ALL=C
PATH=$PATH:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
pw_page=$(getconf PAGESIZE 2>/dev/null </dev/null)
if [ -z "$pw_page" ]; then
  set -- $(grep -m1 KernelPageSize /proc/self/smaps 2>/dev/null </dev/null)
  [ -n "$2" ] && pw_page=$(($2 * 1024))
fi
pw_arch=$(uname -m </dev/null)

pw_cpuinfo='model name|Model Name|Processor|Model|Hardware|CPU implementer|CPU part|cpu model|system type'
pw_cpuinfo="$pw_cpuinfo|cpu|cpu type|CPU|uarch|mvendorid|isa|vendor_id|processor 0|cpu MHz"

# Names of the entries of directories.
pw_list() {
  for pw_dir; do
    [ -d "$pw_dir" ] || continue
    echo "=== $pw_dir list"
    for pw_entry in "$pw_dir"/*; do
      [ -e "$pw_entry" ] && echo "${pw_entry##*/}"
    done
  done
}

# Interfaces: the entries that tell whether an interface repeats the traffic of another.
pw_interfaces() {
  for pw_dir in /sys/class/net/*; do
    echo "=== $pw_dir list"
    for pw_entry in "$pw_dir"/device "$pw_dir"/bridge "$pw_dir"/bonding "$pw_dir"/tun_flags \
      "$pw_dir"/lower_* "$pw_dir"/upper_*; do
      [ -e "$pw_entry" ] && echo "${pw_entry##*/}"
    done
  done
}

# Block devices: their partitions, and the devices below and above them.
pw_disks() {
  for pw_dir in /sys/block/*; do
    pw_disk=${pw_dir##*/}
    case $pw_disk in loop* | ram*) continue ;; esac
    echo "=== $pw_dir list"
    for pw_entry in "$pw_dir/$pw_disk"*; do
      [ -e "$pw_entry" ] && echo "${pw_entry##*/}"
    done
    pw_list "$pw_dir"/slaves "$pw_dir"/holders "$pw_dir/$pw_disk"*/holders
  done
}

# Sensor chips: the names of their attributes, which older drivers create in the parent device.
pw_sensors() {
  for pw_dir in /sys/class/hwmon/hwmon* /sys/class/hwmon/hwmon*/device; do
    [ -d "$pw_dir" ] || continue
    echo "=== $pw_dir list"
    for pw_entry in "$pw_dir"/name "$pw_dir"/temp* "$pw_dir"/fan*; do
      [ -e "$pw_entry" ] && echo "${pw_entry##*/}"
    done
  done
}

# Lines of files, each with the file name as prefix. Errors of files that were deleted or are not
# readable are ignored.
pw_files() {
  grep -as "$@" /dev/null </dev/null 2>/dev/null
}

pw_clocks() {
  read -r pw_up pw_rest </proc/uptime
  echo "=== @monotonic_ms"
  echo "${pw_up%.*}${pw_up#*.}0"
  pw_now=$(date +%s%N </dev/null)
  case $pw_now in
    *[!0-9]* | ?????????? ) pw_now=${pw_now%%[!0-9]*}000 ;;
    *) pw_now=${pw_now%??????} ;;
  esac
  echo "=== @wall_ms"
  echo "$pw_now"
  [ -n "$pw_page" ] && { echo "=== @page_size"; echo "$pw_page"; }
  [ -e /proc/sys/kernel/arch ] || { echo "=== /proc/sys/kernel/arch"; echo "$pw_arch"; }
}

pw_processes() {
  echo "=== /proc list"
  for pw_entry in /proc/[0-9]*; do
    echo "${pw_entry##*/}"
  done
  echo "=== @files"
  # Limited to what the collectors read, because a process controls the size of its command line.
  pw_files -m 20 '' /proc/[0-9]*/stat /proc/[0-9]*/io
  pw_files -m 4 '' /proc/[0-9]*/cmdline | cut -b 1-4200
  pw_files -m 1 '^Uid:' /proc/[0-9]*/status
  echo "=== @counts"
  # Since Linux 6.2 the size of the directory is the number of open files.
  pw_fd=$(stat -L -c %s "/proc/$$/fd" 2>/dev/null </dev/null)
  if [ "${pw_fd:-0}" -gt 0 ]; then
    stat -c '%s %n' /proc/[0-9]*/fd 2>/dev/null </dev/null
  else
    for pw_dir in /proc/[0-9]*/fd; do
      set -- "$pw_dir"/*
      [ -L "$1" ] && echo "$# $pw_dir"
    done
  fi
}

# TCP connections by state; skipped above 10,000 connections, where reading them takes too long.
pw_tcp() {
  pw_open=0
  while read -r pw_kind pw_a pw_inuse pw_b pw_c pw_d pw_tw pw_rest; do
    [ "$pw_kind" = TCP: ] && pw_open=$((pw_inuse + pw_tw))
  done </proc/net/sockstat
  while read -r pw_kind pw_a pw_inuse pw_rest; do
    [ "$pw_kind" = TCP6: ] && pw_open=$((pw_open + pw_inuse))
  done 2>/dev/null </proc/net/sockstat6
  [ "$pw_open" -le 10000 ] || return
  for pw_file in /proc/net/tcp /proc/net/tcp6; do
    [ -r "$pw_file" ] || continue
    echo "=== $pw_file"
    sed 's/^\( *[0-9]*: [^ ]* [^ ]* ..\).*/\1/' "$pw_file" </dev/null
  done
}

# Runs stat on a mount that may hang, in a background process. While the process hangs, no second
# process is started: the line "? MOUNT" without numbers reports an unresponsive mount.
pw_remote() {
  printf '? %s\n' "$1"
  grep -qsF "pw-mount:$1|" /proc/[0-9]*/cmdline </dev/null && return
  sh -c 'pw=${0#pw-mount:}
    pw=${pw%?}
    pw=$(stat -f -c "%S %b %f %a %c %d %n" "$pw") || pw="! $pw"
    [ "$(date +%s)" -le "$1" ] && printf "%s\n" "$pw"' "pw-mount:$1|" "$2" </dev/null 2>/dev/null &
  pw_waiting="$pw_waiting $!"
}

pw_mounts() {
  set --
  pw_waiting=
  pw_until=$(($(date +%s </dev/null) + 2))
  echo "=== @statfs"
  while read -r pw_id pw_parent pw_device pw_root pw_point pw_rest; do
    pw_kind=${pw_rest#*- }
    pw_kind=${pw_kind%% *}
    case $pw_point in
      # A line break in a mount point could be mistaken for another line of the capture.
      *\\012*) continue ;;
      *\\*) pw_point=$(printf '%b' "$(printf '%s\n' "$pw_point" | sed 's/\\\([0-7]\)/\\0\1/g')" </dev/null) ;;
    esac
    case $pw_kind in
      nfs* | cifs | smb* | ceph | fuse* | 9p | afs | glusterfs | lustre | gfs* | ocfs2 | beegfs)
        pw_remote "$pw_point" "$pw_until" ;;
      autofs | bpf | *cgroup* | configfs | debugfs | devpts | devtmpfs | efivarfs | hugetlbfs | mqueue | \
        nsfs | proc | pstore | ramfs | securityfs | selinuxfs | squashfs | sysfs | tracefs) ;;
      tmpfs)
        case $pw_point in /dev* | /proc* | /run* | /sys*) ;; *) set -- "$@" "$pw_point" ;; esac ;;
      # Container runtimes mount single files.
      *) [ -d "$pw_point" ] && set -- "$@" "$pw_point" ;;
    esac
  done </proc/self/mountinfo
  if [ $# -gt 0 ] && ! stat -f -c '%S %b %f %a %c %d %n' "$@" 2>/dev/null </dev/null; then
    # stat has no option -f, or a mount point is not accessible.
    df -Pk "$@" 2>/dev/null </dev/null | sed 's/^/df /'
  fi
  pw_tenths=0
  for pw_pid in $pw_waiting; do
    while [ "$pw_tenths" -lt 20 ] && kill -0 "$pw_pid" 2>/dev/null; do
      sleep 0.1 2>/dev/null </dev/null || { sleep 1 </dev/null; pw_tenths=$((pw_tenths + 9)); }
      pw_tenths=$((pw_tenths + 1))
    done
  done
}

pw_probe() {
  pw_clocks
  echo "=== @files"
  pw_files '' /proc/stat /proc/meminfo /proc/vmstat /proc/loadavg /proc/uptime /proc/diskstats \
    /proc/pressure/* /proc/net/dev /proc/net/sockstat /proc/net/sockstat6 /proc/net/snmp /proc/net/snmp6 \
    /proc/net/netstat /proc/spl/kstat/zfs/arcstats /proc/sys/vm/min_free_kbytes \
    /sys/kernel/mm/hugepages/hugepages-*/*_hugepages \
    /proc/self/mountinfo /proc/sys/fs/file-nr /proc/sys/kernel/random/boot_id \
    /proc/sys/kernel/random/entropy_avail /proc/sys/kernel/osrelease /proc/sys/kernel/arch \
    /proc/sys/kernel/hostname /etc/os-release /usr/lib/os-release /etc/passwd \
    /sys/class/net/*/operstate /sys/class/net/*/speed /sys/class/net/*/type /sys/class/net/*/uevent \
    /sys/class/net/*/ifindex /sys/class/net/*/iflink /sys/class/net/*/phys_port_name \
    /sys/block/*/hidden /sys/block/*/removable /sys/block/*/size \
    /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq \
    /sys/class/hwmon/hwmon*/name /sys/class/hwmon/hwmon*/device/name \
    /sys/class/hwmon/hwmon*/temp*_* /sys/class/hwmon/hwmon*/device/temp*_* \
    /sys/class/hwmon/hwmon*/fan*_* /sys/class/hwmon/hwmon*/device/fan*_* \
    /sys/class/thermal/thermal_zone*/type /sys/class/thermal/thermal_zone*/temp \
    /sys/class/thermal/thermal_zone*/trip_point_*_type /sys/class/thermal/thermal_zone*/trip_point_*_temp \
    /run/systemd/sessions/*
  # Keys of cpu_model.rs and frequency.rs; a server may have thousands of processors.
  grep -asHE "^($pw_cpuinfo)[[:space:]]*:" /proc/cpuinfo </dev/null
  pw_list /sys/block /sys/devices/system/cpu /sys/kernel/mm/hugepages /sys/class/hwmon /sys/class/thermal \
    /sys/class/thermal/thermal_zone* /run/systemd/sessions /run/systemd/timesync
  pw_interfaces
  pw_disks
  pw_sensors
  echo "=== @links"
  ls -ld /sys/class/hwmon/hwmon*/device /sys/class/net/*/device/subsystem 2>/dev/null </dev/null
  for pw_file in /run/utmp /var/run/utmp; do
    [ -r "$pw_file" ] || continue
    echo "=== $pw_file hex"
    od -An -v -tx1 "$pw_file" 2>/dev/null </dev/null
    break
  done
  pw_tcp
  pw_mounts
  pw_processes
  echo "=== @end"
}

# Requests before this line could be consumed by the shell's own read of this script.
echo "=== @ready"
while read -r pw_line; do
  [ "$pw_line" = capture ] && pw_probe
done
