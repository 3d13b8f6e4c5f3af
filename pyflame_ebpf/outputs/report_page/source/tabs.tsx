// Tabs and what they show: one stop of the Tab key; the arrows, Home and End go from tab to tab, and choose it.

import type { ComponentChildren } from "preact";

interface Tab<Name> {
  name: Name;
  text: string;
  title?: string;
  mark?: ComponentChildren;
}

interface Choice<Name> {
  id: string;
  label: string;
  tabs: Tab<Name>[];
  chosen: Name;
  choose: (name: Name) => void;
}

export function Tabs<Name extends string>({ id, label, tabs, chosen, choose }: Choice<Name>) {
  const move = (event: KeyboardEvent) => {
    const to = neighbour(event, tabs.findIndex(({ name }) => name === chosen), tabs.length);
    if (to === null) {
      return;
    }
    choose(tabs[to].name);
    document.getElementById(`${id}-${tabs[to].name}`)?.focus();
    event.preventDefault();
    event.stopPropagation();
  };
  return (
    <div class="switch" role="tablist" aria-label={label} onKeyDown={move}>
      {tabs.map(({ name, text, title, mark }) => (
        <button
          key={name}
          id={`${id}-${name}`}
          type="button"
          role="tab"
          title={title}
          tabIndex={name === chosen ? 0 : -1}
          aria-selected={name === chosen}
          aria-controls={name === chosen ? `${id}-panel` : undefined}
          onClick={() => choose(name)}
        >
          {text}
          {mark}
        </button>
      ))}
    </div>
  );
}

function neighbour(event: KeyboardEvent, at: number, count: number): number | null {
  if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) {
    return null;
  }
  const places: Record<string, number> = { ArrowRight: (at + 1) % count, ArrowLeft: (at + count - 1) % count, Home: 0, End: count - 1 };
  return places[event.key] ?? null;
}

export function Panel({ id, chosen, children }: { id: string; chosen: string; children: ComponentChildren }) {
  return (
    <div id={`${id}-panel`} class="panel" role="tabpanel" aria-labelledby={`${id}-${chosen}`}>
      {children}
    </div>
  );
}
