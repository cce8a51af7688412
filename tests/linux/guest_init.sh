#!/bin/busybox sh
# /init of the guests: prints what it has, and then a line for each look at its memory and its disk.
# Words of the kernel's command line: do=WHAT ends it at once, or is a shell; clock=phc2sys and clock=chrony have that set its clock by the host's.
/bin/busybox mkdir -p /bin /disk
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
word() { sed -n "s/.*\<$1=\([^ ]*\).*/\1/p" /proc/cmdline; }
run() { program=$1; shift; /disk/lib/loader --library-path /disk/lib "/disk/bin/$program" "$@"; }
case $(word do) in
  reboot) reboot -f;;
  poweroff) poweroff -f;;
  panic) echo c >/proc/sysrq-trigger;;
  reset) echo b >/proc/sysrq-trigger;;
  exit) exit 3;;
  shell) exec setsid cttyhack sh;;
esac
for module in $(cat /modules/order); do insmod /modules/$module.ko || echo "guest: no $module"; done
[ -b /dev/vda ] && mount -t ext4 /dev/vda /disk
echo "guest: $(uname -r), $(grep -c ^processor /proc/cpuinfo) cpu, clock $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
echo "guest: random $(cat /sys/class/misc/hw_random/rng_current), ptp $(cat /sys/class/ptp/ptp0/clock_name), net $(echo $(ls /sys/class/net))"
case $(word clock) in
  phc2sys)
    run phc2sys -s /dev/ptp0 -c CLOCK_REALTIME -O 0 -S 0.5 -m -q -l 5 &
    ;;
  chrony)
    mkdir -p /etc /run/chrony /var/lib/chrony; echo "root:x:0:0::/:/bin/sh" >/etc/passwd
    run chronyd -d -u root "refclock PHC /dev/ptp0 poll 0" "makestep 0.5 -1" &
    ;;
esac
[ -e /dev/vsock ] && [ -d /disk/bin ] && run socat VSOCK-LISTEN:52,fork OPEN:/disk/tick &
dd if=/dev/urandom of=/blob bs=1M count=8 2>/dev/null
right=$(md5sum </blob)
tick=0
while :; do
  tick=$((tick + 1))
  read uuid </proc/sys/kernel/random/uuid
  [ "$(md5sum </blob)" = "$right" ] && memory=same || memory=WRONG
  disk=none
  [ -d /disk/bin ] && echo "$tick $uuid" >/disk/new && mv /disk/new /disk/tick && sync /disk/tick && read disk rest </disk/tick
  echo "tick $tick date $EPOCHSECONDS memory $memory disk $disk uuid $uuid"
  sleep 1
done
