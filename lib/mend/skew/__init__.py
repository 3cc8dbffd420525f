"""What two versions of an application expect, what two schemas say to that, and a change that is made in phases between them."""
