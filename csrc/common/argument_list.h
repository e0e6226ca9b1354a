// SPDX-License-Identifier: Apache-2.0
// The arguments of an op, in order, in one place: a macro LIST(X) calls X(type, name) for each.
//   LIST(LONGCLOCK_SCHEMA)     their part of the schema
//   LIST(LONGCLOCK_PARAMETER)  the parameters of the op's functions
//   LIST(LONGCLOCK_FIELD)      a struct of references that carries them on
//   LIST(LONGCLOCK_NAME)       what such a struct is made of
// Each ends with a comma, so an op's last argument is written behind its list.
#pragma once

#define LONGCLOCK_SCHEMA_Tensor "Tensor"
#define LONGCLOCK_SCHEMA_OptionalTensor "Tensor?"
#define LONGCLOCK_SCHEMA_OptionalTensorList "Tensor[]?"
#define LONGCLOCK_SCHEMA_OptionalString "str?"
#define LONGCLOCK_SCHEMA_bool "bool"
#define LONGCLOCK_SCHEMA_int64_t "int"
#define LONGCLOCK_SCHEMA_double "float"
#define LONGCLOCK_SCHEMA_Ints "int[]"
#define LONGCLOCK_SCHEMA_Floats "float[]"

#define LONGCLOCK_SCHEMA(type, name) LONGCLOCK_SCHEMA_##type " " #name ", "
#define LONGCLOCK_PARAMETER(type, name) const type &name,
#define LONGCLOCK_FIELD(type, name) const type& name;
#define LONGCLOCK_NAME(type, name) name,

// The parameters of s(); and its clocks: a period, 0 for the time elapsed, and a unit of each.
#define LONGCLOCK_MLP(X) X(Tensor, w1) X(Tensor, b1) X(Tensor, w2) X(Tensor, b2)
#define LONGCLOCK_CLOCKS(X) X(Ints, periods) X(Floats, units)
