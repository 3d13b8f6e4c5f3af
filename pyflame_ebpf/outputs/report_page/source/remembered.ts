// What is made of two things once, as long as both are there.

export type Remembered<One extends object, Other extends object, Value> = WeakMap<One, WeakMap<Other, Value>>;

export function remembered<One extends object, Other extends object, Value>(
  known: Remembered<One, Other, Value>,
  one: One,
  other: Other,
  make: () => Value,
): Value {
  let ofOne = known.get(one);
  if (!ofOne) {
    known.set(one, (ofOne = new WeakMap()));
  }
  let made = ofOne.get(other);
  if (!made) {
    ofOne.set(other, (made = make()));
  }
  return made;
}
