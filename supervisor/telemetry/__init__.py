"""What is measured while VMs run, and the alarms that follow from it."""
