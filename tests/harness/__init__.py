"""What tests share: real processes, hosts that are told, and what must hold on a host."""
