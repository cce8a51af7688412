#!/bin/busybox sh
# /init of the nested host: this machine's files, read-only by 9p with a tmpfs above, become its root; then /session is run.
/bin/busybox mkdir -p /bin /lower /new
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do
  insmod /modules/$module.ko $(cat /modules/$module.options 2>/dev/null) || echo "host: $module did not load"
done
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro host /lower
mount -t tmpfs -o size=90% none /mnt; mkdir /mnt/upper /mnt/work
mount -t overlay -o lowerdir=/lower,upperdir=/mnt/upper,workdir=/mnt/work none /new
for folder in proc sys dev; do mount --move /$folder /new/$folder; done
mount -t tmpfs none /new/run; mount -t tmpfs -o size=90% none /new/tmp
# The checkout may lie below /tmp or /run.
checkout=$(cat /checkout)
mkdir -p "/new$checkout"; mount --bind "/lower$checkout" "/new$checkout"
mkdir -p /new/dev/pts /new/dev/shm; mount -t devpts devpts /new/dev/pts; mount -t tmpfs shm /new/dev/shm
mount -t cgroup2 none /new/sys/fs/cgroup
ifconfig lo 127.0.0.1 up
cp /session /new/run/session
echo "host: up after $(cut -d' ' -f1 /new/proc/uptime) s"
exec switch_root -c /dev/console /new /run/session
