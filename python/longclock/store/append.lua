-- SPDX-License-Identifier: Apache-2.0
-- Appends behaviours to a user's history, as a whole or not at all, and returns how many of them are new.
--
-- KEYS: the user's body and tail. ARGV: bytes of a record, most bytes of a tail, capacity, and the new records: in order,
-- each (time, item) once.
--
-- A record begins with 16 bytes whose order is that of (time, item), and ends with a check of 4 bytes that its reader
-- verifies. The body is records in order. The tail is the records that came last, in an order of their own, also those that
-- are older than some of the body's, and at its end what both values have: how many records, and the sum of their checks, both
-- modulo 2^32. So an append writes no more than a tail, however late it comes. A full tail is merged into the body, and the
-- oldest records beyond the capacity go.
--
-- An append is one command that writes, so that the server's log has it whole or not at all. Several would be a transaction
-- there, and a server that is killed while it writes one may come back with half of it at the end of its log, where all that it
-- acknowledges afterwards is taken for more of that transaction: at the next start it is gone.
local body_key, tail_key = KEYS[1], KEYS[2]
local size, tail_bytes, capacity, new = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local TOTALS, MODULUS = 8, 4294967296
local SEVERAL = 8 -- late records: the body is fetched at once, and not record by record

-- Lua compares strings by the locale's order, and its numbers hold 53 bits.
local function less(a, b)
  local a1, a2, a3, a4 = struct.unpack('>I4I4I4I4', a)
  local b1, b2, b3, b4 = struct.unpack('>I4I4I4I4', b)
  if a1 ~= b1 then return a1 < b1 end
  if a2 ~= b2 then return a2 < b2 end
  if a3 ~= b3 then return a3 < b3 end
  return a4 < b4
end

local function key_in(records)
  return function(at) return string.sub(records, at * size + 1, at * size + 16) end
end

-- The first place from `low` on, of `high`, whose key is not less; and whether it is the key itself.
local function search(key_at, low, high, key)
  if high > low and less(key_at(high - 1), key) then return high, false end
  local most = high
  while low < high do
    local middle = math.floor((low + high) / 2)
    if less(key_at(middle), key) then low = middle + 1 else high = middle end
  end
  return low, low < most and key_at(low) == key
end

-- Two in order as one, what both have once, as the first has it; those that only the second has; and how many places of the
-- first stay where they are.
local function merge(old, added)
  local key_at, count, parts, fresh, from, same = key_in(old), #old / size, {}, {}, 0, nil
  for at = 0, #added - 1, size do
    local place, there = search(key_at, from, count, string.sub(added, at + 1, at + 16))
    if not there then
      same = same or place
      parts[#parts + 1] = string.sub(old, from * size + 1, place * size)
      parts[#parts + 1] = string.sub(added, at + 1, at + size)
      fresh[#fresh + 1] = parts[#parts]
      from = place
    end
  end
  parts[#parts + 1] = string.sub(old, from * size + 1)
  return table.concat(parts), table.concat(fresh), same
end

local function sum_of_checks(records)
  local sum = 0
  for at = size - 3, #records, size do sum = sum + struct.unpack('>I4', records, at) end
  return sum
end

-- Those that the body does not have.
local function without_those_of_the_body(records, body_count)
  local text = nil
  local function key_at(at)
    if text then return string.sub(text, at * size + 1, at * size + 16) end
    return redis.call('GETRANGE', body_key, at * size, at * size + 15)
  end
  local last, kept, searched = key_at(body_count - 1), {}, 0
  for at = 0, #records - 1, size do
    local key = string.sub(records, at + 1, at + 16)
    local there = false
    if not less(last, key) then
      searched = searched + 1
      if searched == SEVERAL then text = redis.call('GET', body_key) end
      there = select(2, search(key_at, 0, body_count, key))
    end
    if not there then kept[#kept + 1] = string.sub(records, at + 1, at + size) end
  end
  return table.concat(kept)
end

local tail, body_bytes = redis.call('GET', tail_key), redis.call('STRLEN', body_key)
local old, count, sum = '', 0, 0
if tail then
  old = string.sub(tail, 1, -TOTALS - 1)
  if #tail >= TOTALS then count, sum = struct.unpack('>I4I4', tail, #tail - TOTALS + 1) end
end
if (tail and #tail < TOTALS) or body_bytes % size ~= 0 or count * size ~= body_bytes + #old then
  return redis.error_reply('DAMAGED ' .. (body_bytes + #old) .. ' bytes are there where ' .. count .. ' behaviours were written')
end

if body_bytes > 0 then new = without_those_of_the_body(new, body_bytes / size) end
local merged, fresh, same = merge(old, new)
if #fresh == 0 then return 0 end
count, sum = count + #fresh / size, sum + sum_of_checks(fresh)

local function with_totals(records)
  return records .. struct.pack('>I4I4', count % MODULUS, sum % MODULUS)
end

if #merged < tail_bytes then
  redis.call('SETRANGE', tail_key, same * size, with_totals(string.sub(merged, same * size + 1)))
else
  local body = merge(redis.call('GET', body_key) or '', merged)
  local gone = string.sub(body, 1, math.max(0, #body - capacity * size))
  count, sum = count - #gone / size, sum - sum_of_checks(gone)
  redis.call('MSET', body_key, string.sub(body, #gone + 1), tail_key, with_totals(''))
end
return #fresh / size
