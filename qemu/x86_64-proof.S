/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The smallest guest that needs what an ordinary one needs: it goes from the
 * reset vector through protected mode into long mode with paging, takes three
 * timer interrupts out of HLT, does some 200 million instructions, and then
 * leaves with an exit code of its own. A KVM that runs this to its answer in
 * time is one to trust with a kernel. (There are some that interpret a guest's
 * kernel one instruction at a time: everything works, and never ends.)
 *
 * A 64 KiB firmware image, linked to where the ISA window shows it.
 */
	.set	BASE, 0xf0000
	.set	CODE32, 0x08
	.set	DATA, 0x10
	.set	CODE64, 0x18
	/* All in the first 2 MiB of RAM, below this image. */
	.set	PML4, 0x1000
	.set	PDPT, 0x2000
	.set	PD, 0x3000
	.set	IDT, 0x4000
	.set	WORD, 0x6000
	.set	STACK, 0x7000
	.set	TIMER_VECTOR, 0x20
	.set	APIC, 0xfee00000
	.set	EXIT_PORT, 0xf4
	/* QEMU's exit code is twice this plus one: 99. */
	.set	ANSWER, 49

	.text
	.globl	_start
_start:
	.code16
real_mode:
	cli
	lgdtl	%cs:(gdt_pointer - BASE)
	movl	%cr0, %eax
	orl	$1, %eax
	movl	%eax, %cr0
	ljmpl	$CODE32, $protected_mode

	.code32
protected_mode:
	movl	$DATA, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	movl	$STACK, %esp
	/* Let the interrupt controller through to the processor: local APIC on, LINT0 ExtINT. */
	movl	$0x1ff, APIC + 0xf0
	movl	$0x700, APIC + 0x350
	/* RAM is not promised to be zero. */
	xorl	%eax, %eax
	movl	$PML4, %edi
	movl	$((STACK - PML4) / 4), %ecx
	rep stosl
	/* One 2 MiB page, mapped to itself. */
	movl	$(PDPT + 3), PML4
	movl	$(PD + 3), PDPT
	movl	$0x83, PD
	movl	%cr4, %eax
	orl	$0x20, %eax
	movl	%eax, %cr4
	movl	$PML4, %eax
	movl	%eax, %cr3
	movl	$0xc0000080, %ecx
	rdmsr
	orl	$0x100, %eax
	wrmsr
	movl	%cr0, %eax
	orl	$0x80000000, %eax
	movl	%eax, %cr0
	ljmpl	$CODE64, $long_mode

	.code64
long_mode:
	movl	$(IDT + 16 * TIMER_VECTOR), %edi
	movl	$timer, %eax
	movw	%ax, (%rdi)
	movw	$CODE64, 2(%rdi)
	movw	$0x8e00, 4(%rdi)
	shrl	$16, %eax
	movw	%ax, 6(%rdi)
	lidt	idt_pointer
	/* Interrupt controllers: vectors from 0x20, only the timer's line open. */
	movb	$0x11, %al
	outb	%al, $0x20
	outb	%al, $0xa0
	movb	$TIMER_VECTOR, %al
	outb	%al, $0x21
	movb	$(TIMER_VECTOR + 8), %al
	outb	%al, $0xa1
	movb	$4, %al
	outb	%al, $0x21
	movb	$2, %al
	outb	%al, $0xa1
	movb	$1, %al
	outb	%al, $0x21
	outb	%al, $0xa1
	movb	$0xfe, %al
	outb	%al, $0x21
	movb	$0xff, %al
	outb	%al, $0xa1
	/* The timer: channel 0, rate generator, a thousand times a second. */
	movb	$0x34, %al
	outb	%al, $0x43
	movb	$(1193 & 0xff), %al
	outb	%al, $0x40
	movb	$(1193 >> 8), %al
	outb	%al, $0x40
	xorl	%ebx, %ebx
	sti
wait:
	hlt
	cmpl	$3, %ebx
	jb	wait
	movl	$(1 << 26), %ecx
work:
	addl	%ecx, WORD
	decl	%ecx
	jnz	work
	movb	$ANSWER, %al
	outb	%al, $EXIT_PORT
stop:
	hlt
	jmp	stop

timer:
	incl	%ebx
	movb	$0x20, %al
	outb	%al, $0x20
	iretq

	.balign	8
gdt:
	.quad	0
	.quad	0x00cf9a000000ffff
	.quad	0x00cf92000000ffff
	.quad	0x00af9a000000ffff
gdt_pointer:
	.word	. - gdt - 1
	.long	gdt
	.balign	8
idt_pointer:
	.word	16 * (TIMER_VECTOR + 1) - 1
	.quad	IDT

	/* Where the processor starts: 16 bytes below the end. */
	.org	0xfff0
	.code16
	jmp	real_mode
	.org	0xffff
	.byte	0
